use super::*;

#[test]
fn a_sleep_takes_its_time_on_the_loops_clock() {
    run(async {
        asyncio::sleep(seconds(3)).await?;
        assert_eq!(now(), 3.0);
        asyncio::sleep(Duration::from_millis(500)).await?;
        assert_eq!(now(), 3.5);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_sleep_of_zero_gives_way_for_exactly_one_turn() {
    let log = Log::default();
    let seen = log.clone();
    run(async move {
        let other = log.clone();
        let task = asyncio::create_task(async move {
            for turn in 0..3 {
                other.note(format!("other {turn}"));
                asyncio::sleep(Duration::ZERO).await?;
            }
            Ok(())
        });
        for turn in 0..3 {
            log.note(format!("main {turn}"));
            asyncio::sleep(Duration::ZERO).await?;
        }
        task.await
    })
    .unwrap();
    seen.is(["main 0", "other 0", "main 1", "other 1", "main 2", "other 2"]);
}

#[test]
fn sleepers_wake_by_deadline_and_equal_ones_in_order() {
    let log = Log::default();
    let seen = log.clone();
    run(async move {
        let tasks: Vec<_> = [3, 1, 2, 1]
            .into_iter()
            .enumerate()
            .map(|(number, delay)| {
                let log = log.clone();
                asyncio::create_task(async move {
                    asyncio::sleep(seconds(delay)).await?;
                    log.note(format!("{number}@{}", now()));
                    Ok(())
                })
            })
            .collect();
        for task in tasks {
            task.await?;
        }
        Ok(())
    })
    .unwrap();
    seen.is(["1@1", "3@1", "2@2", "0@3"]);
}

#[test]
fn a_cancelled_sleep_leaves_no_timer_to_wait_for() {
    run(async {
        let task = asyncio::create_task(async { Ok(asyncio::sleep(seconds(3600)).await?) });
        turns(1).await?;
        task.cancel();
        assert!(task.await.unwrap_err().is_cancelled());
        asyncio::sleep(seconds(1)).await?;
        assert_eq!(now(), 1.0);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_sleep_beyond_all_time_is_no_error() {
    run(async {
        let task = asyncio::create_task(async { Ok(asyncio::sleep(Duration::MAX).await?) });
        turns(2).await?;
        assert!(!task.done());
        task.cancel();
        assert!(task.await.is_err());
        Ok(())
    })
    .unwrap();
}

#[test]
fn ten_thousand_sleepers_wake() {
    run(async {
        let tasks: Vec<_> = (0..10_000)
            .map(|number| {
                asyncio::create_task(async move {
                    asyncio::sleep(Duration::from_millis(number * 7919 % 1000)).await?;
                    Ok(number)
                })
            })
            .collect();
        let mut sum = 0;
        for task in tasks {
            sum += task.await?;
        }
        assert_eq!(sum, 49_995_000);
        Ok(())
    })
    .unwrap();
}
