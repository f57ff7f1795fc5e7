//! Python's concurrency system in Rust: threads, processes and coroutines, laid into one rope.
