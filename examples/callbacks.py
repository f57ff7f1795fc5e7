"""A callback is called when the task is done, with the task as its last argument; in the order of their adding."""

import functools

import ropewalk


async def answer() -> int:
    print("the task runs")
    return 42


def tell(who: str, task) -> None:
    print(f"{who}: done: {task.done()}, result: {task.result()}")


loop = ropewalk.new_event_loop()
task = loop.create_task(answer())
task.add_done_callback(functools.partial(tell, "first callback"))
task.add_done_callback(functools.partial(tell, "second callback"))
print(f"before the loop runs: done: {task.done()}")
loop.run_until_complete(task)
task.add_done_callback(functools.partial(tell, "too late, so called at the loop's next turn"))
loop.call_soon(loop.stop)
loop.run_forever()
loop.close()
