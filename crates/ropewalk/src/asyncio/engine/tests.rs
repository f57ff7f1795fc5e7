use std::os::fd::AsFd;

use super::*;

/// Entries are numbers; those above 1000 count as cancelled.
struct Numbers;

impl Host for Numbers {
    type Entry = u32;
    type Mail = u32;
    type Source = u32;

    fn receive(mail: u32) -> u32 {
        mail
    }

    fn is_cancelled(entry: &u32) -> bool {
        *entry > 1000
    }
}

fn engine() -> Engine<Numbers> {
    let mut engine = Engine::new().expect("descriptors");
    engine.clock = Clock::Virtual(0);
    engine.time();
    engine
}

/// One turn: what ran, events being given as 100 times their source.
fn turn(engine: &mut Engine<Numbers>, may_block: bool) -> Vec<u32> {
    if let Some(wait) = engine.wait(may_block) {
        let woken = wait.block();
        engine.woke(woken).expect("poll");
        while let Some(event) = engine.next_event() {
            let entry = engine.reactor.source(event.fd).expect("resolved") * 100;
            engine.push(entry);
        }
    }
    engine.expire();
    (0..engine.ready()).filter_map(|_| engine.pop()).collect()
}

#[test]
fn entries_run_first_in_first_out() {
    let mut engine = engine();
    (0..200).for_each(|n| engine.push(n));
    assert_eq!(turn(&mut engine, true), (0..200).collect::<Vec<_>>());
}

#[test]
fn timers_run_by_deadline_and_equal_deadlines_in_order_of_insertion() {
    let mut engine = engine();
    for n in 0..300u32 {
        engine.push_at(u64::from(n * 7919 % 100), n);
    }
    let mut expected: Vec<u32> = (0..300).collect();
    expected.sort_by_key(|n| n * 7919 % 100);
    let mut seen = Vec::new();
    while !engine.timers.is_empty() {
        seen.extend(turn(&mut engine, true));
    }
    assert_eq!(seen, expected);
    assert_eq!(engine.time(), 99);
}

#[test]
fn a_virtual_clock_stands_while_entries_are_ready() {
    let mut engine = engine();
    engine.push_at(10, 1);
    engine.push(2);
    assert_eq!(turn(&mut engine, true), [2]);
    assert_eq!(engine.time(), 0);
    assert_eq!(turn(&mut engine, true), [1]);
    assert_eq!(engine.time(), 10);
}

#[test]
fn cancelled_timers_hold_no_one_up_and_are_handed_out() {
    let mut engine = engine();
    engine.push_at(5, 1001);
    engine.push_at(1_000_000, 7);
    assert_eq!(turn(&mut engine, true), [1001]);
    assert_eq!(engine.time(), 0, "no sleep until a cancelled deadline");
    assert_eq!(turn(&mut engine, true), [7]);
}

#[test]
fn many_cancelled_timers_leave_the_heap_before_their_deadline() {
    let mut engine = engine();
    for n in 0..100 {
        engine.push_at(n, n as u32);
        engine.push_at(u64::MAX, 2000 + n as u32);
    }
    assert!((0..100).all(|_| engine.timer_cancelled().is_empty()));
    assert_eq!(engine.timers.len(), 200);
    let gone = engine.timer_cancelled();
    assert_eq!(engine.timers.len(), 100);
    assert_eq!(gone.len(), 100);
    assert!(gone.iter().all(|&n| n >= 2000));
    let mut seen = Vec::new();
    while !engine.timers.is_empty() {
        seen.extend(turn(&mut engine, true));
    }
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
}

#[test]
fn mail_wakes_a_sleeping_loop() {
    let mut engine = Engine::<Numbers>::new().expect("descriptors");
    let remote = engine.remote();
    let sender = std::thread::spawn(move || (0..1000).for_each(|n| remote.send(n).expect("alive")));
    let mut seen = Vec::new();
    while seen.len() < 1000 {
        seen.extend(turn(&mut engine, true)); // hangs on a lost wake-up
    }
    assert_eq!(seen, (0..1000).collect::<Vec<_>>());
    sender.join().expect("sender");
}

#[test]
fn a_ring_ends_a_sleep_without_mail() {
    let mut engine = Engine::<Numbers>::new().expect("descriptors");
    let remote = engine.remote();
    let ringer = std::thread::spawn(move || remote.ring());
    assert_eq!(turn(&mut engine, true), []);
    ringer.join().expect("ringer");
}

#[test]
fn mail_to_a_loop_that_is_gone_comes_back() {
    let engine = engine();
    let remote = engine.remote();
    drop(engine);
    assert_eq!(remote.send(3), Err(3));
    remote.ring();
}

#[test]
fn level_triggered_readiness_is_told_at_every_poll_and_edges_once() {
    use std::io::Write;
    let (mut near, far) = std::os::unix::net::UnixStream::pair().expect("pair");
    for (trigger, second) in [(Trigger::Level, vec![300]), (Trigger::Edge, vec![])] {
        let mut engine = engine();
        let interest = Interest {
            readable: true,
            writable: false,
        };
        engine
            .reactor
            .register(far.as_fd(), interest, trigger, 3)
            .expect("register");
        near.write_all(b"x").expect("write");
        assert_eq!(turn(&mut engine, false), [300]);
        assert_eq!(turn(&mut engine, false), second);
    }
}

#[test]
fn interest_can_change_and_end() {
    let (near, _far) = std::os::unix::net::UnixStream::pair().expect("pair");
    let mut engine = engine();
    let fd = near.as_fd();
    engine
        .reactor
        .register(
            fd,
            Interest {
                readable: true,
                writable: false,
            },
            Trigger::Level,
            1,
        )
        .expect("register");
    assert_eq!(turn(&mut engine, false), []);
    engine
        .reactor
        .modify(
            fd,
            Interest {
                readable: true,
                writable: true,
            },
        )
        .expect("modify");
    assert_eq!(turn(&mut engine, false), [100]);
    engine.reactor.modify(fd, Interest::default()).expect("modify");
    assert_eq!(turn(&mut engine, false), []);
    use std::os::fd::AsRawFd;
    assert_eq!(engine.reactor.deregister(fd.as_raw_fd()), Some(1));
    assert_eq!(engine.reactor.deregister(fd.as_raw_fd()), None);
    assert_eq!(
        engine
            .reactor
            .modify(fd, Interest::default())
            .map_err(|e| e.kind()),
        Err(io::ErrorKind::NotFound)
    );
}

#[test]
fn a_descriptor_registered_twice_is_refused_and_its_source_given_back() {
    let (near, _far) = std::os::unix::net::UnixStream::pair().expect("pair");
    let mut engine = engine();
    engine
        .reactor
        .register(near.as_fd(), Interest::default(), Trigger::Level, 1)
        .expect("register");
    let (error, source) = engine
        .reactor
        .register(near.as_fd(), Interest::default(), Trigger::Level, 2)
        .expect_err("twice");
    assert_eq!((error.kind(), source), (io::ErrorKind::AlreadyExists, 2));
    let file = std::fs::File::open("/proc/self/exe").expect("file");
    let (error, source) = engine
        .reactor
        .register(file.as_fd(), Interest::default(), Trigger::Level, 3)
        .expect_err("plain file");
    assert_eq!((error.kind(), source), (io::ErrorKind::PermissionDenied, 3));
}

#[test]
fn an_event_of_a_registration_that_is_gone_is_dropped() {
    let (near, far) = std::os::unix::net::UnixStream::pair().expect("pair");
    let writable = Interest {
        readable: false,
        writable: true,
    };
    let mut engine = engine();
    for end in [&near, &far] {
        engine
            .reactor
            .register(end.as_fd(), writable, Trigger::Level, 1)
            .expect("register");
    }
    let woken = engine.wait(false).expect("the first turn polls").block();
    engine.woke(woken).expect("poll");
    let first = engine.next_event().expect("two are ready").fd;
    use std::os::fd::AsRawFd;
    let other = if first == near.as_raw_fd() { &far } else { &near };
    engine.reactor.deregister(other.as_raw_fd());
    engine
        .reactor
        .register(other.as_fd(), writable, Trigger::Level, 2)
        .expect("again");
    assert_eq!(
        engine.next_event(),
        None,
        "the second event was of the old registration"
    );
}

#[test]
fn a_busy_loop_polls_in_time() {
    use std::io::Write;
    let (mut near, far) = std::os::unix::net::UnixStream::pair().expect("pair");
    let mut engine = Engine::<Numbers>::new().expect("descriptors");
    let interest = Interest {
        readable: true,
        writable: false,
    };
    engine
        .reactor
        .register(far.as_fd(), interest, Trigger::Level, 3)
        .expect("register");
    near.write_all(b"x").expect("write");
    engine.push(1);
    // Endless ready work must not starve I/O: this hangs if it does.
    while !turn(&mut engine, true).contains(&300) {
        engine.push(1);
    }
}
