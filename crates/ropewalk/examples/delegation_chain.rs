//! Three delegating coroutines above one that yields: the caller talks to the innermost, results travel outwards.

use ropewalk::coroutine::{Coroutine, Error, Step};

type Link = Coroutine<'static, String, i32, i32, &'static str>;

fn innermost() -> Link {
    Coroutine::new(|mut co| async move {
        let first = co.yield_("innermost: first?".to_owned()).await?;
        let second = match co.yield_(format!("innermost: got {first}, second?")).await {
            Err(Error::Raised(error)) => co.yield_(format!("innermost: handled {error}, second?")).await?,
            second => second?,
        };
        Ok(first + second)
    })
}

fn link(name: &'static str, sub: Link) -> Link {
    Coroutine::new(move |mut co| async move {
        let result = co.yield_from(sub).await?;
        println!("{name}: sub-coroutine returned {result}");
        Ok(result * 10)
    })
}

fn main() -> Result<(), Error<&'static str>> {
    let chain = link("outer", link("middle", link("inner", innermost())));
    println!("{}", chain.next()?.yielded().unwrap_or_default());
    println!("{}", chain.send(1)?.yielded().unwrap_or_default());
    println!("{}", chain.throw("a hiccup")?.yielded().unwrap_or_default());
    if let Step::Returned(result) = chain.send(2)? {
        println!("caller: {result}");
    }

    // Any iterator will do as the innermost.
    let letters = Coroutine::<char>::new(|mut co| async move { co.yield_from_iter("AB".chars()).await });
    let both = Coroutine::<char>::new(|mut co| async move {
        co.yield_from(letters).await?;
        co.yield_from_iter('1'..='2').await
    });
    println!("{}", both.collect::<String>());
    Ok(())
}
