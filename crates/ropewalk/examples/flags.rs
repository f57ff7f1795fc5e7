//! Downloads the flags of the twenty most populous countries, one way after the other, and compares the ways.
//!
//! ```sh
//! cargo run --example flags
//! cargo run --example flags -- JP FR --latency 0.5
//! cargo run --example flags -- --error-rate 0.2 --slow-rate 0.1 --timeout 2
//! cargo run --example flags -- --base-url http://127.0.0.1:8000
//! ```
//!
//! The twin of `examples/flags.py`, with the same server: without `--base-url` it starts `examples/flag_server.py`. A
//! country that fails is named, and costs no other.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::rc::Rc;
#[cfg(target_os = "linux")]
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ropewalk::futures::{self, Executor, ThreadPoolExecutor};
#[cfg(target_os = "linux")]
use ropewalk::{asyncio, futures::ProcessPoolExecutor};
use serde::{Deserialize, Serialize};

const POP20: &str = "CN IN US ID BR PK NG BD RU JP MX PH VN ET EG DE IR TR CD FR";
const USAGE: &str = "usage: flags [--base-url URL] [--folder FOLDER] [--timeout SECONDS] [--latency SECONDS] \
                     [--error-rate SHARE] [--slow-rate SHARE] [CC ...]";

type AnyError = Box<dyn Error + Send + Sync>;

/// A country, and the size of its flag or why there is none.
type Outcome = (String, Result<usize, String>);

/// Where flags come from, where they go to, and how long one may take.
#[derive(Clone, Serialize, Deserialize)]
struct Job {
    base_url: String,
    folder: PathBuf,
    timeout: Duration,
}

/// Fetches one flag and saves it.
#[cfg_attr(target_os = "linux", ropewalk::remote)]
fn download(job: Job, country: String) -> Outcome {
    let fetch = || -> Result<usize, AnyError> {
        let config = ureq::Agent::config_builder().timeout_global(Some(job.timeout));
        let local = job.base_url.starts_with("http://127.0.0.1:");
        let config = if local { config.proxy(None) } else { config };
        let url = format!("{}/{country}/{country}.gif", job.base_url).to_lowercase();
        let image = ureq::Agent::from(config.build())
            .get(url)
            .call()?
            .body_mut()
            .read_to_vec()?;
        fs::write(job.folder.join(format!("{country}.gif")), &image)?;
        Ok(image.len())
    };
    let result = fetch().map_err(|error| error.to_string());
    (country, result)
}

/// The same in a coroutine.
#[cfg(target_os = "linux")]
async fn download_in_coroutine(job: Job, country: String) -> asyncio::Result<Outcome> {
    let url = format!("{}/{country}/{country}.gif", job.base_url).to_lowercase();
    let image = match asyncio::wait_for(get(url), job.timeout).await {
        Err(error) if error.is_cancelled() => return Err(error),
        image => image.and_then(|image| {
            fs::write(job.folder.join(format!("{country}.gif")), &image)?;
            Ok(image.len())
        }),
    };
    Ok((country, image.map_err(|error| error.to_string())))
}

#[cfg(target_os = "linux")]
async fn get(url: String) -> asyncio::Result<Vec<u8>> {
    let address = url
        .strip_prefix("http://")
        .ok_or_else(|| io::Error::other("a coroutine speaks plain http alone"))?;
    let (host, path) = address.split_at(address.find('/').unwrap_or(address.len()));
    let (name, port) = host.split_once(':').unwrap_or((host, "80"));
    let (mut reader, mut writer) = asyncio::net::open_connection(name, port.parse()?).await?;
    // After HTTP 1.0's answer the server closes the connection.
    writer.write(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes());
    let status = String::from_utf8(reader.readline().await?)?;
    let status = status.split(' ').nth(1).unwrap_or("none");
    if status != "200" {
        return Err(io::Error::other(format!("http status: {status}")).into());
    }
    reader.readuntil(b"\r\n\r\n").await?;
    reader.read_to_end().await
}

/// A way takes countries and reports each one's outcome when it is known.
type Way = fn(&Job, &BTreeSet<String>, Report) -> Result<(), AnyError>;
type Report = Rc<dyn Fn(Outcome)>;

const WAYS: &[(&str, Way)] = &[
    ("sequentially", sequentially),
    ("threads", threads),
    #[cfg(target_os = "linux")]
    ("processes", processes),
    #[cfg(target_os = "linux")]
    ("coroutines", coroutines),
    #[cfg(target_os = "linux")]
    ("mixed", mixed),
    #[cfg(target_os = "linux")]
    ("mixed_awaited", mixed_awaited),
];

fn sequentially(job: &Job, countries: &BTreeSet<String>, report: Report) -> Result<(), AnyError> {
    for country in countries {
        report(download(job.clone(), country.clone()));
    }
    Ok(())
}

fn threads(job: &Job, countries: &BTreeSet<String>, report: Report) -> Result<(), AnyError> {
    let pool = ThreadPoolExecutor::builder().max_workers(countries.len()).build();
    let futures = countries.iter().map(|country| {
        let (job, country) = (job.clone(), country.clone());
        pool.submit(move || download(job, country))
    });
    completed(futures.collect::<Result<_, _>>()?, report)
}

#[cfg(target_os = "linux")]
fn processes(job: &Job, countries: &BTreeSet<String>, report: Report) -> Result<(), AnyError> {
    let pool = ProcessPoolExecutor::builder().build()?;
    let futures = countries
        .iter()
        .map(|country| pool.submit(&download, (job.clone(), country.clone())));
    completed(futures.collect::<Result<_, _>>()?, report)
}

#[cfg(target_os = "linux")]
fn coroutines(job: &Job, countries: &BTreeSet<String>, report: Report) -> Result<(), AnyError> {
    let downloads: Vec<_> = countries
        .iter()
        .map(|country| download_in_coroutine(job.clone(), country.clone()))
        .collect();
    Ok(asyncio::run(async { awaited(downloads, report).await })?)
}

/// A third by threads, a third by processes, a third by coroutines, in one `as_completed`.
#[cfg(target_os = "linux")]
fn mixed(job: &Job, countries: &BTreeSet<String>, report: Report) -> Result<(), AnyError> {
    let some_threads = ThreadPoolExecutor::new();
    let some_processes = ProcessPoolExecutor::new()?;
    let (remote, loop_in_thread) = start_loop()?;
    let futures = countries.iter().cloned().enumerate().map(|(number, country)| {
        let job = job.clone();
        match number % 3 {
            0 => Ok(some_threads.submit(move || download(job, country))?),
            1 => Ok(some_processes.submit(&download, (job, country))?),
            _ => remote.run_coroutine_threadsafe(move || download_in_coroutine(job, country)),
        }
    });
    completed(futures.collect::<asyncio::Result<_>>()?, report)?;
    remote.call_soon_threadsafe(|| {
        asyncio::get_running_loop()
            .expect("called on the loop's thread")
            .stop();
    })?;
    loop_in_thread.join().expect("the loop does not panic")?;
    Ok(())
}

#[cfg(target_os = "linux")]
fn start_loop() -> Result<(asyncio::Remote, JoinHandle<asyncio::Result<()>>), AnyError> {
    let (give, take) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let event_loop = asyncio::EventLoop::new()?;
        give.send(event_loop.remote())?;
        event_loop.run_forever()
    });
    Ok((take.recv()?, thread))
}

/// The same thirds, awaited in a coroutine.
#[cfg(target_os = "linux")]
fn mixed_awaited(job: &Job, countries: &BTreeSet<String>, report: Report) -> Result<(), AnyError> {
    let (job, countries) = (job.clone(), countries.clone());
    Ok(asyncio::run(async move {
        let some_threads = ThreadPoolExecutor::new();
        let some_processes = ProcessPoolExecutor::new()?;
        let mut downloads = Vec::new();
        for (number, country) in countries.into_iter().enumerate() {
            let job = job.clone();
            downloads.push(match number % 3 {
                0 => asyncio::create_task(asyncio::wrap_future(
                    some_threads.submit(move || download(job, country))?,
                )),
                1 => asyncio::create_task(asyncio::wrap_future(
                    some_processes.submit(&download, (job, country))?,
                )),
                _ => asyncio::create_task(download_in_coroutine(job, country)),
            });
        }
        awaited(downloads, report).await
    })?)
}

#[cfg(target_os = "linux")]
async fn awaited<F>(downloads: Vec<F>, report: Report) -> asyncio::Result<()>
where
    F: Future<Output = asyncio::Result<Outcome>> + 'static,
{
    let mut completed = asyncio::as_completed(downloads, None);
    while let Some(task) = completed.next().await? {
        report(task.await?);
    }
    Ok(())
}

fn completed(futures: Vec<futures::Future<Outcome>>, report: Report) -> Result<(), AnyError> {
    for future in futures::as_completed(futures, None) {
        report(future?.result()?);
    }
    Ok(())
}

/// Downloads in every way, prints the table and the failures; says whether there were none.
fn compare(options: &Options, base_url: &str) -> Result<bool, AnyError> {
    let mut rows = Vec::new();
    let failures = Rc::new(RefCell::new(Vec::new()));
    for &(name, way) in WAYS {
        let folder = options.folder.join(name);
        fs::create_dir_all(&folder)?;
        let job = Job {
            base_url: base_url.to_owned(),
            folder,
            timeout: options.timeout,
        };
        print!("{name:14}");
        let started = Instant::now();
        let files = Rc::new(Cell::new(0));
        let (saved, failed) = (files.clone(), failures.clone());
        let report = move |(country, result)| {
            match result {
                Ok(_) => saved.set(saved.get() + 1),
                Err(error) => failed.borrow_mut().push(format!("{country} ({name}): {error}")),
            }
            print!("{country} ");
            let _ = io::stdout().flush();
        };
        way(&job, &options.countries, Rc::new(report))?;
        rows.push((name, files.get(), started.elapsed().as_secs_f64()));
        println!();
    }
    println!("\n{:14}{:>6}{:>10}{:>10}", "way", "files", "seconds", "speed-up");
    for (name, files, seconds) in &rows {
        println!("{name:14}{files:6}{seconds:10.2}{:9.1}x", rows[0].2 / seconds);
    }
    println!();
    for failure in failures.borrow().iter() {
        println!("failed: {failure}");
    }
    Ok(failures.borrow().is_empty())
}

struct Options {
    countries: BTreeSet<String>,
    base_url: Option<String>,
    folder: PathBuf,
    timeout: Duration,
    server: Vec<String>,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, AnyError> {
        let mut options = Options {
            countries: BTreeSet::new(),
            base_url: None,
            folder: "downloaded".into(),
            timeout: Duration::from_secs_f64(6.1),
            server: Vec::new(),
        };
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .ok_or_else(|| format!("{word} wants a value\n{USAGE}"))
            };
            match word.as_str() {
                "--base-url" => options.base_url = Some(value()?),
                "--folder" => options.folder = value()?.into(),
                "--timeout" => options.timeout = Duration::try_from_secs_f64(value()?.parse()?)?,
                "--latency" | "--error-rate" | "--slow-rate" => {
                    options.server.extend([word.clone(), value()?])
                }
                _ if word.starts_with('-') => return Err(USAGE.into()),
                _ => drop(options.countries.insert(word.to_uppercase())),
            }
        }
        if options.countries.is_empty() {
            options.countries = POP20.split(' ').map(str::to_owned).collect();
        }
        Ok(options)
    }
}

/// `examples/flag_server.py`, in a process that ends with this one: when its standard input is closed.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(arguments: &[String]) -> Result<Server, AnyError> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/flag_server.py");
        let mut process = Command::new("python3")
            .arg(script)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("python3, which runs the server, does not start: {error}"))?;
        let mut url = String::new();
        if let Some(output) = process.stdout.take() {
            BufReader::new(output).read_line(&mut url)?;
        }
        let url = url.trim().to_owned();
        Ok(Server { process, url })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

fn main() -> Result<ExitCode, AnyError> {
    let options = Options::parse(std::env::args().skip(1))?;
    let all = match &options.base_url {
        Some(url) => compare(&options, url)?,
        None => {
            let server = Server::start(&options.server)?;
            compare(&options, &server.url)?
        }
    };
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
