"""Python's concurrency system rebuilt in Rust: threads, processes and coroutines, laid into one rope."""
