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
use std::sync::Arc;
use std::time::{Duration, Instant};

use ropewalk::futures::{Executor, ThreadPoolExecutor, as_completed};

const POP20: &str = "CN IN US ID BR PK NG BD RU JP MX PH VN ET EG DE IR TR CD FR";
const USAGE: &str = "usage: flags [--base-url URL] [--folder FOLDER] [--timeout SECONDS] [--latency SECONDS] \
                     [--error-rate SHARE] [--slow-rate SHARE] [CC ...]";

type AnyError = Box<dyn Error + Send + Sync>;
type Outcome = Result<usize, AnyError>;

/// Fetches flags and saves them.
struct Downloader {
    agent: ureq::Agent,
    base_url: String,
    folder: PathBuf,
}

impl Downloader {
    /// Fetches and saves one flag; returns its size.
    fn download(&self, country: &str) -> Outcome {
        let url = format!("{}/{country}/{country}.gif", self.base_url).to_lowercase();
        let image = self.agent.get(url).call()?.body_mut().read_to_vec()?;
        fs::write(self.folder.join(format!("{country}.gif")), &image)?;
        Ok(image.len())
    }
}

/// A way takes countries and reports each one's outcome when it is known.
type Way = fn(&Arc<Downloader>, &BTreeSet<String>, &mut dyn FnMut(&str, Outcome)) -> Result<(), AnyError>;

const WAYS: [(&str, Way); 2] = [("sequentially", sequentially), ("threads", threads)];

fn sequentially(
    downloader: &Arc<Downloader>,
    countries: &BTreeSet<String>,
    report: &mut dyn FnMut(&str, Outcome),
) -> Result<(), AnyError> {
    for country in countries {
        report(country, downloader.download(country));
    }
    Ok(())
}

fn threads(
    downloader: &Arc<Downloader>,
    countries: &BTreeSet<String>,
    report: &mut dyn FnMut(&str, Outcome),
) -> Result<(), AnyError> {
    let pool = ThreadPoolExecutor::builder().max_workers(countries.len()).build();
    let submit = |country: &String| {
        let (downloader, country) = (downloader.clone(), country.clone());
        pool.submit(move || (downloader.download(&country), country))
    };
    let futures = countries.iter().map(submit).collect::<Result<Vec<_>, _>>()?;
    for future in as_completed(futures, None) {
        let (outcome, country) = future?.result()?;
        report(&country, outcome);
    }
    Ok(())
}

/// Downloads in every way, prints the table and the failures; says whether there were none.
fn compare(options: &Options, base_url: &str) -> Result<bool, AnyError> {
    let config = ureq::Agent::config_builder().timeout_global(Some(options.timeout));
    let config = if options.base_url.is_some() {
        config
    } else {
        config.proxy(None)
    };
    let agent = ureq::Agent::from(config.build());
    let mut rows = Vec::new();
    let mut failures = Vec::new();
    for (name, way) in WAYS {
        let folder = options.folder.join(name);
        fs::create_dir_all(&folder)?;
        let downloader = Arc::new(Downloader {
            agent: agent.clone(),
            base_url: base_url.to_owned(),
            folder,
        });
        print!("{name:14}");
        let (started, mut files) = (Instant::now(), 0);
        way(&downloader, &options.countries, &mut |country, outcome| {
            match outcome {
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
