//! A bytecode interpreter that is not thread-safe, run by many threads under a Gil.
//!
//! Its threads share their variables. The lock is checked between two instructions, as CPython does, and released while
//! one of them blocks.

use std::collections::BTreeMap;
use std::fmt;
use std::thread;
use std::time::Duration;

use ropewalk::gil::{Gil, GilGuard, Policy};

/// The instructions: of a stack machine, with one level of variables.
enum Op {
    Push(i64),
    Load(&'static str),
    Store(&'static str),
    Add,
    Multiply,
    /// Jumps when the topmost number is not 0.
    JumpIf(usize),
    /// Blocks for so many milliseconds, as reading a file would, and pushes what was read.
    Read(u64, i64),
}

use Op::{Add, JumpIf, Load, Multiply, Push, Read, Store};

/// What all threads share: nothing in it knows of threads.
#[derive(Default)]
struct Interpreter {
    variables: BTreeMap<&'static str, i64>,
    executed: u64,
}

/// A program that did not mean what it did.
#[derive(Debug)]
enum Fault {
    EmptyStack,
    NoSuchVariable(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyStack => f.write_str("the stack is empty"),
            Self::NoSuchVariable(name) => write!(f, "name '{name}' is not defined"),
        }
    }
}

/// Runs one program in the calling thread. The stack is the thread's own.
fn run(interpreter: &mut GilGuard<'_, Interpreter>, program: &[Op]) -> Result<(), Fault> {
    let mut stack = Vec::new();
    let mut next = 0;
    while let Some(op) = program.get(next) {
        interpreter.checkpoint();
        interpreter.executed += 1;
        next += 1;
        let mut pop = || stack.pop().ok_or(Fault::EmptyStack);
        match *op {
            Push(number) => stack.push(number),
            Load(name) => {
                let value = interpreter
                    .variables
                    .get(name)
                    .ok_or(Fault::NoSuchVariable(name))?;
                stack.push(*value);
            }
            Store(name) => {
                let value = pop()?;
                interpreter.variables.insert(name, value);
            }
            Add => {
                let sum = pop()? + pop()?;
                stack.push(sum);
            }
            Multiply => {
                let product = pop()? * pop()?;
                stack.push(product);
            }
            JumpIf(target) => {
                if pop()? != 0 {
                    next = target;
                }
            }
            Read(milliseconds, number) => {
                interpreter.release_for(|| thread::sleep(Duration::from_millis(milliseconds)));
                stack.push(number);
            }
        }
    }
    Ok(())
}

/// Counts `counter` down from `from`, and takes it into `result` by `step` each time.
fn count_down(counter: &'static str, from: i64, result: &'static str, start: i64, step: Op) -> Vec<Op> {
    vec![
        Push(from),
        Store(counter),
        Push(start),
        Store(result),
        // 4: the loop
        Load(result),
        Load(counter),
        step,
        Store(result),
        Load(counter),
        Push(-1),
        Add,
        Store(counter),
        Load(counter),
        JumpIf(4),
    ]
}

fn main() {
    let programs = [
        ("sum", count_down("i", 10_000, "sum", 0, Add)),
        ("factorial", count_down("j", 20, "factorial", 1, Multiply)),
        ("read", vec![Read(20, 40), Read(20, 2), Add, Store("read")]),
        ("faulty", vec![Load("nobody")]),
    ];
    let interpreter = Gil::with_policy(Interpreter::default(), Policy::IoPriority);
    thread::scope(|scope| {
        let threads: Vec<_> = programs
            .iter()
            .map(|(name, program)| (name, scope.spawn(|| run(&mut interpreter.acquire(), program))))
            .collect();
        for (name, thread) in threads {
            match thread.join() {
                Ok(Ok(())) => println!("{name}: done"),
                Ok(Err(fault)) => println!("{name}: {fault}"),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    let Interpreter { variables, executed } = interpreter.into_inner();
    for name in ["sum", "factorial", "read"] {
        println!("{name} = {}", variables[name]);
    }
    println!("{executed} instructions");
}
