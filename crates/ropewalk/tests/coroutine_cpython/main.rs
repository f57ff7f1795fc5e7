//! Random coroutines, driven at random, do what CPython's generators do: both kinds against the interpreter itself.
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::rc::Rc;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use ropewalk::coroutine::{Co, Coroutine, Error, Step};

type Fail = Error<i32>;
type Tested = Coroutine<'static, i32, Option<i32>, Option<i32>, i32>;
type Log = Rc<RefCell<Vec<String>>>;

#[derive(Clone, Debug)]
enum Statement {
    Yield(i32),
    Raise(Thrown),
    Return(i32),
    Try(Block, Catch, Block),
    Finally(Block, Block),
    Delegate { sub: Block, started: bool },
    Iterate(i32),
}

type Block = Vec<Statement>;

#[derive(Clone, Copy, Debug)]
enum Catch {
    Own,
    Exit,
    All,
}

#[derive(Clone, Copy, Debug)]
enum Thrown {
    Own(i32),
    Exit,
    Stop,
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    Next,
    Send(i32),
    Throw(Thrown),
    Close,
}

fn thrown() -> impl Strategy<Value = Thrown> {
    prop_oneof![3 => (0..9).prop_map(Thrown::Own), 2 => Just(Thrown::Exit), 1 => Just(Thrown::Stop)]
}

fn block() -> impl Strategy<Value = Block> {
    let statement = prop_oneof![
        6 => (0..100).prop_map(Statement::Yield),
        1 => thrown().prop_map(Statement::Raise),
        1 => (0..100).prop_map(Statement::Return),
        1 => (1..4).prop_map(Statement::Iterate),
    ];
    let catch = || prop_oneof![Just(Catch::Own), Just(Catch::Exit), Just(Catch::All)];
    let statement = statement.prop_recursive(4, 24, 3, move |inner| {
        let block = || prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            (block(), catch(), block())
                .prop_map(|(body, catch, handler)| Statement::Try(body, catch, handler)),
            (block(), block()).prop_map(|(body, last)| Statement::Finally(body, last)),
            (block(), any::<bool>()).prop_map(|(sub, started)| Statement::Delegate { sub, started }),
        ]
    });
    prop::collection::vec(statement, 1..5)
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => Just(Operation::Next),
        4 => (0..100).prop_map(Operation::Send),
        2 => thrown().prop_map(Operation::Throw),
        1 => Just(Operation::Close),
    ]
}

/// The block as Python, a sub-generator as a function of its own before its use.
fn python(block: &[Statement], indent: usize, source: &mut String) {
    let pad = "    ".repeat(indent);
    for statement in block {
        let nested = |head: &str, block: &[Statement], source: &mut String| {
            writeln!(source, "{pad}{head}").unwrap();
            python(block, indent + 1, source);
        };
        match statement {
            Statement::Yield(value) => writeln!(source, "{pad}log(f'received {{(yield {value})}}')").unwrap(),
            Statement::Raise(Thrown::Own(error)) => writeln!(source, "{pad}raise E({error})").unwrap(),
            Statement::Raise(Thrown::Exit) => writeln!(source, "{pad}raise GeneratorExit").unwrap(),
            Statement::Raise(Thrown::Stop) => writeln!(source, "{pad}raise StopIteration").unwrap(),
            Statement::Return(value) => writeln!(source, "{pad}return {value}").unwrap(),
            Statement::Iterate(n) => writeln!(source, "{pad}yield from range({n})").unwrap(),
            Statement::Try(body, catch, handler) => {
                nested("try:", body, source);
                let caught = match catch {
                    Catch::Own => "E",
                    Catch::Exit => "GeneratorExit",
                    Catch::All => "BaseException",
                };
                nested(&format!("except {caught} as e:"), &[], source);
                writeln!(source, "{pad}    log(f'caught {{name(e)}}')").unwrap();
                python(handler, indent + 1, source);
            }
            Statement::Finally(body, last) => {
                nested("try:", body, source);
                nested("finally:", last, source);
            }
            Statement::Delegate { sub, started } => {
                nested("def sub():", sub, source);
                writeln!(source, "{pad}    return\n{pad}    yield").unwrap();
                let sub = if *started { "started(sub())" } else { "sub()" };
                writeln!(source, "{pad}log(f'joined {{(yield from {sub})}}')").unwrap();
            }
        }
    }
}

impl From<Thrown> for Fail {
    fn from(thrown: Thrown) -> Self {
        match thrown {
            Thrown::Own(error) => Error::Raised(error),
            Thrown::Exit => Error::GeneratorExit,
            Thrown::Stop => Error::Finished,
        }
    }
}

fn name(error: &Fail) -> String {
    match error {
        Error::Raised(error) => format!("E {error}"),
        Error::GeneratorExit => "GeneratorExit".into(),
        Error::Finished => "StopIteration".into(),
        Error::NotStarted => "TypeError".into(),
        Error::NoSend => "AttributeError".into(),
        other => other.to_string(),
    }
}

fn text(value: Option<i32>) -> String {
    value.map_or("None".into(), |value| value.to_string())
}

/// `Some` once the block has returned.
type Flow = Result<Option<i32>, Fail>;

impl Catch {
    fn catches(self, error: &Fail) -> bool {
        match self {
            Catch::Own => matches!(error, Error::Raised(_)),
            Catch::Exit => matches!(error, Error::GeneratorExit),
            Catch::All => true,
        }
    }
}

fn stackless(block: Block, log: Log) -> Tested {
    fn run<'f>(
        block: &'f [Statement],
        co: &'f mut Co<'static, i32, Option<i32>, i32>,
        log: &'f Log,
    ) -> Pin<Box<dyn Future<Output = Flow> + 'f>> {
        Box::pin(async move {
            for statement in block {
                let flow = match statement {
                    Statement::Yield(value) => {
                        let received = co.yield_(*value).await?;
                        log.borrow_mut().push(format!("received {}", text(received)));
                        None
                    }
                    Statement::Raise(thrown) => return Err((*thrown).into()),
                    Statement::Return(value) => Some(*value),
                    Statement::Iterate(n) => co.yield_from_iter(0..*n).await.map(|()| None)?,
                    Statement::Try(body, catch, handler) => match run(body, co, log).await {
                        Err(error) if catch.catches(&error) => {
                            log.borrow_mut().push(format!("caught {}", name(&error)));
                            run(handler, co, log).await?
                        }
                        flow => flow?,
                    },
                    Statement::Finally(body, last) => {
                        let flow = run(body, co, log).await;
                        match run(last, co, log).await? {
                            None => flow?,
                            returned => returned,
                        }
                    }
                    Statement::Delegate { sub, started } => {
                        let result = co
                            .yield_from(sub_coroutine(stackless, sub, *started, log)?)
                            .await?;
                        log.borrow_mut().push(format!("joined {}", text(result)));
                        None
                    }
                };
                if flow.is_some() {
                    return Ok(flow);
                }
            }
            Ok(None)
        })
    }
    Coroutine::new(|mut co| async move { run(&block, &mut co, &log).await })
}

#[cfg(feature = "stackful")]
fn stackful(block: Block, log: Log) -> Tested {
    use ropewalk::coroutine::stackful::Co;

    fn run(block: &[Statement], co: &Co<'_, i32, Option<i32>, i32>, log: &Log) -> Flow {
        for statement in block {
            let flow = match statement {
                Statement::Yield(value) => {
                    let received = co.yield_(*value)?;
                    log.borrow_mut().push(format!("received {}", text(received)));
                    None
                }
                Statement::Raise(thrown) => return Err((*thrown).into()),
                Statement::Return(value) => Some(*value),
                Statement::Iterate(n) => co.yield_from_iter(0..*n).map(|()| None)?,
                Statement::Try(body, catch, handler) => match run(body, co, log) {
                    Err(error) if catch.catches(&error) => {
                        log.borrow_mut().push(format!("caught {}", name(&error)));
                        run(handler, co, log)?
                    }
                    flow => flow?,
                },
                Statement::Finally(body, last) => {
                    let flow = run(body, co, log);
                    match run(last, co, log)? {
                        None => flow?,
                        returned => returned,
                    }
                }
                Statement::Delegate { sub, started } => {
                    let result = co.yield_from(sub_coroutine(stackful, sub, *started, log)?)?;
                    log.borrow_mut().push(format!("joined {}", text(result)));
                    None
                }
            };
            if flow.is_some() {
                return Ok(flow);
            }
        }
        Ok(None)
    }
    Coroutine::stackful(move |co| run(&block, co, &log)).unwrap()
}

fn sub_coroutine(
    kind: fn(Block, Log) -> Tested,
    block: &Block,
    started: bool,
    log: &Log,
) -> Result<Tested, Fail> {
    let sub = kind(block.clone(), log.clone());
    if started && sub.next()?.yielded().is_none() {
        return Err(Error::Finished);
    }
    Ok(sub)
}

fn trace(kind: fn(Block, Log) -> Tested, block: &Block, operations: &[Operation]) -> String {
    let log = Log::default();
    let coroutine = kind(block.clone(), log.clone());
    for operation in operations {
        let result = match *operation {
            Operation::Next => coroutine.next(),
            Operation::Send(value) => coroutine.send(Some(value)),
            Operation::Throw(thrown) => coroutine.throw(thrown),
            Operation::Close => match coroutine.close() {
                Ok(_) => {
                    log.borrow_mut().push("closed".into());
                    continue;
                }
                Err(error) => Err(error),
            },
        };
        let line = match result {
            Ok(Step::Yielded(value)) => format!("yielded {value}"),
            Ok(Step::Returned(value)) => format!("returned {}", text(value)),
            Err(Error::Finished) => "returned None".into(),
            Err(error) => format!("raised {}", name(&error)),
        };
        log.borrow_mut().push(line);
    }
    drop(coroutine);
    log.take().join(" | ")
}

fn request(block: &[Statement], operations: &[Operation]) -> String {
    let mut source = "def main():\n".to_owned();
    python(block, 1, &mut source);
    source.push_str("    return\n    yield\n");
    let mut request = format!("({source:?}, [");
    for operation in operations {
        match operation {
            Operation::Next => request.push_str("('next',), "),
            Operation::Send(value) => write!(request, "('send', {value}), ").unwrap(),
            Operation::Throw(Thrown::Own(error)) => write!(request, "('throw', {error}), ").unwrap(),
            Operation::Throw(Thrown::Exit) => request.push_str("('throw', 'exit'), "),
            Operation::Throw(Thrown::Stop) => request.push_str("('throw', 'stop'), "),
            Operation::Close => request.push_str("('close',), "),
        }
    }
    request + "])\n"
}

#[test]
fn coroutines_do_what_generators_do() {
    // The newest there is: thrown StopIterations are compared from 3.12 on.
    let interpreter = ["python3.13", "python3.12", "python3"]
        .into_iter()
        .find(|name| {
            Command::new(name)
                .arg("--version")
                .output()
                .is_ok_and(|version| version.status.success())
        })
        .expect("CPython, 3.10 or newer, is what this test compares with");
    let mut python = Command::new(interpreter)
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/coroutine_cpython/oracle.py"
        ))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut questions = python.stdin.take().unwrap();
    let mut answers = BufReader::new(python.stdout.take().unwrap());
    let ask = RefCell::new(move |request: &str| {
        let mut answer = String::new();
        questions.write_all(request.as_bytes()).unwrap();
        answers.read_line(&mut answer).unwrap();
        answer.truncate(answer.trim_end().len());
        answer
    });

    let config = Config {
        cases: 2000,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let result = runner.run(
        &(block(), prop::collection::vec(operation(), 1..9)),
        |(block, operations)| {
            let expected = (ask.borrow_mut())(&request(&block, &operations));
            if expected.is_empty() {
                return Ok(());
            }
            prop_assert_eq!(&trace(stackless, &block, &operations), &expected);
            #[cfg(feature = "stackful")]
            prop_assert_eq!(&trace(stackful, &block, &operations), &expected);
            Ok(())
        },
    );
    drop(ask);
    python.wait().unwrap();
    if let Err(failure) = result {
        panic!("{failure}");
    }
}
