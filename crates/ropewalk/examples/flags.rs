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

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use ropewalk::futures::ProcessPoolExecutor;
use ropewalk::futures::{Executor, Future, ThreadPoolExecutor, as_completed};
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

/// A way takes countries and reports each one's outcome when it is known.
type Way = fn(&Job, &BTreeSet<String>, &mut dyn FnMut(Outcome)) -> Result<(), AnyError>;

const WAYS: &[(&str, Way)] = &[
    ("sequentially", sequentially),
    ("threads", threads),
    #[cfg(target_os = "linux")]
    ("processes", processes),
];

fn sequentially(
    job: &Job,
    countries: &BTreeSet<String>,
    report: &mut dyn FnMut(Outcome),
) -> Result<(), AnyError> {
    for country in countries {
        report(download(job.clone(), country.clone()));
    }
    Ok(())
}

fn threads(job: &Job, countries: &BTreeSet<String>, report: &mut dyn FnMut(Outcome)) -> Result<(), AnyError> {
    let pool = ThreadPoolExecutor::builder().max_workers(countries.len()).build();
    let futures = countries.iter().map(|country| {
        let (job, country) = (job.clone(), country.clone());
        pool.submit(move || download(job, country))
    });
    completed(futures.collect::<Result<_, _>>()?, report)
}

#[cfg(target_os = "linux")]
fn processes(
    job: &Job,
    countries: &BTreeSet<String>,
    report: &mut dyn FnMut(Outcome),
) -> Result<(), AnyError> {
    let pool = ProcessPoolExecutor::builder().build()?;
    let futures = countries
        .iter()
        .map(|country| pool.submit(&download, (job.clone(), country.clone())));
    completed(futures.collect::<Result<_, _>>()?, report)
}

fn completed(futures: Vec<Future<Outcome>>, report: &mut dyn FnMut(Outcome)) -> Result<(), AnyError> {
    for future in as_completed(futures, None) {
        report(future?.result()?);
    }
    Ok(())
}

/// Downloads in every way, prints the table and the failures; says whether there were none.
fn compare(options: &Options, base_url: &str) -> Result<bool, AnyError> {
    let mut rows = Vec::new();
    let mut failures = Vec::new();
    for &(name, way) in WAYS {
        let folder = options.folder.join(name);
        fs::create_dir_all(&folder)?;
        let job = Job {
            base_url: base_url.to_owned(),
            folder,
            timeout: options.timeout,
        };
        print!("{name:14}");
        let (started, mut files) = (Instant::now(), 0);
        way(&job, &options.countries, &mut |(country, result)| {
            match result {
                Ok(_) => files += 1,
                Err(error) => failures.push(format!("{country} ({name}): {error}")),
            }
            print!("{country} ");
            let _ = io::stdout().flush();
        })?;
        rows.push((name, files, started.elapsed().as_secs_f64()));
        println!();
    }
    println!("\n{:14}{:>6}{:>10}{:>10}", "way", "files", "seconds", "speed-up");
    for (name, files, seconds) in &rows {
        println!("{name:14}{files:6}{seconds:10.2}{:9.1}x", rows[0].2 / seconds);
    }
    println!();
    for failure in &failures {
        println!("failed: {failure}");
    }
    Ok(failures.is_empty())
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
