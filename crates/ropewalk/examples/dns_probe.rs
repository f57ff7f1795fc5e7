//! Asks for many names at once and tells of each as soon as its answer is there; `+` marks a name that is known.
//!
//! usage: cargo run --example dns_probe [DOMAIN ...]    default: Rust's short keywords under .dev

use ropewalk::asyncio::{self, get_running_loop, net};

const KEYWORDS: &str = "as dyn else enum fn for if impl in let loop mod move mut pub ref self true type use";

async fn probe(domain: String) -> asyncio::Result<(String, bool)> {
    match get_running_loop()?.getaddrinfo(&domain, 0).await {
        Ok(_) => Ok((domain, true)),
        Err(error) if error.downcast_ref::<net::LookupError>().is_some() => Ok((domain, false)),
        Err(error) => Err(error),
    }
}

#[ropewalk::main]
async fn main() -> asyncio::Result<()> {
    let mut domains: Vec<String> = std::env::args().skip(1).collect();
    if domains.is_empty() {
        domains = KEYWORDS.split(' ').map(|word| format!("{word}.dev")).collect();
    }
    let mut completed = asyncio::as_completed(domains.into_iter().map(probe), None);
    while let Some(task) = completed.next().await? {
        let (domain, found) = task.await?;
        println!("{} {domain}", if found { '+' } else { ' ' });
    }
    Ok(())
}
