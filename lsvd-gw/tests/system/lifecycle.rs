//! Start, `ready`, signals, and what the command line and the configuration file refuse.

use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::client::Failure;
use crate::gateway::{IMAGE, Site};
use crate::model::{self, PAGE};
use crate::tools;

#[test]
fn without_a_command_it_starts_empty_and_stops() {
    let site = Site::new();
    let log = site.start(&[]).stop();
    assert!(log.contains("no image is open"), "{log}");
}

#[test]
fn new_says_what_to_type_next() {
    let site = Site::new();
    let gateway = site.new_image("64m");
    let (log, uri) = (gateway.log(), gateway.uri(IMAGE));
    assert!(log.contains(&format!("try: nbdinfo '{uri}'")), "{log}");
    gateway.stop();
}

#[test]
fn systemd_learns_when_it_is_ready() {
    let site = Site::new();
    let path = site.path("notify.sock");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let site = site.with_variable("NOTIFY_SOCKET", &path);
    let gateway = site.start(&[]);
    let mut told = [0; 64];
    let len = systemd.recv(&mut told).unwrap();
    assert_eq!(String::from_utf8_lossy(&told[..len]).trim(), "READY=1");
    gateway.stop();
}

#[test]
fn a_stop_under_load_answers_everything_and_loses_nothing() {
    let site = Site::new();
    let mut gateway = site.new_image("64m");
    let stopping = AtomicBool::new(false);
    let written: Vec<u64> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4_usize)
            .map(|writer| {
                let mut client = gateway.client();
                let stopping = &stopping;
                scope.spawn(move || {
                    let mut written = 0;
                    loop {
                        let page = writer * 4096 + written % 4096;
                        let data = model::data(1 + written as u64, page..page + 1);
                        match client.write((page * PAGE) as u64, &data, false) {
                            Ok(()) => written += 1,
                            Err(failure) => {
                                assert!(stopping.load(Ordering::Acquire), "{failure:?}");
                                return written as u64;
                            }
                        }
                    }
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(700));
        stopping.store(true, Ordering::Release);
        gateway.signal(Signal::TERM);
        assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.log());
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    assert!(written.iter().all(|written| *written > 0), "{written:?}");
    drop(gateway);

    let gateway = site.mount();
    let mut client = gateway.client();
    for (writer, written) in written.into_iter().enumerate() {
        let pages = writer * 4096..writer * 4096 + 4096;
        let stamps = model::read_stamps(&mut client, pages.clone());
        // Each writer goes round its pages; one write more may have been carried out without an
        // answer.
        let state = |count: u64| {
            (0..4096)
                .map(move |page| (count + 4095 - page) / 4096)
                .zip(0..)
                .map(|(rounds, page)| if rounds == 0 { 0 } else { (rounds - 1) * 4096 + page + 1 })
        };
        let fits = [written, written + 1].iter().any(|count| state(*count).eq(stamps.clone()));
        assert!(fits, "writer {writer} after {written} writes");
    }
    gateway.stop();
}

#[test]
fn after_a_stop_the_image_is_closed() {
    let site = Site::new();
    let gateway = site.new_image("64m");
    let mut client = gateway.client();
    client.write(0, &model::data(1, 0..16), false).unwrap();
    let log = gateway.stop();
    assert!(log.contains("image closed"), "{log}");
    let Some(imgtool) = tools::ours("imgtool") else { return };
    let mut info = std::process::Command::new(imgtool);
    let text = tools::run(info.args(["info", &site.pool_text(), IMAGE]));
    assert!(text.contains("closed"), "{text}");
}

#[test]
fn a_second_signal_ends_it_at_once_and_keeps_what_was_flushed() {
    let site = Site::new().with("--batch-size", "1m");
    let Some(_mount) = crate::place::Mount::tmpfs(&site.pool(), "8m") else { return };
    let mut gateway = site.new_image("64m");
    gateway.expect_trouble("the store does not take objects");
    gateway.expect_trouble("second signal");
    // More than the store can take, so that the first signal has something to wait for.
    let mut client = gateway.client();
    for chunk in 0..16 {
        let pages = chunk * 256..(chunk + 1) * 256;
        client.write((pages.start * PAGE) as u64, &model::data(7, pages), false).unwrap();
    }
    client.flush().unwrap();
    gateway.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(1500));
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait().code(), Some(2), "{}", gateway.log());
    assert!(gateway.log().contains("second signal"), "{}", gateway.log());
    drop(gateway);

    let mut gateway = site.mount();
    gateway.expect_trouble("the store does not take objects");
    let stamps = model::read_stamps(&mut gateway.client(), 0..4096);
    assert!(stamps.iter().all(|stamp| *stamp == 7));
}

#[test]
fn new_makes_images_anew() {
    let site = Site::new();
    let gateway = site.new_image("64m");
    let mut client = gateway.client();
    client.write(0, &model::data(1, 0..16), true).unwrap();
    // Killed: the image is recreated although it was never closed, because its log is ours.
    gateway.kill();
    let gateway = site.new_images(2, "32m", "512");
    assert!(gateway.log().contains("made anew"), "{}", gateway.log());
    let mut client = gateway.client();
    assert_eq!(client.size(), 32 << 20);
    assert_eq!(model::read_stamps(&mut client, 0..16), [0; 16]);
    assert_eq!(gateway.client_of("auto_lsvddev_1").size(), 32 << 20);
    gateway.stop();
}

#[test]
fn a_range_outside_the_image_is_an_error_and_changes_nothing() {
    let site = Site::new();
    let gateway = site.new_image("64m");
    let mut client = gateway.client();
    let end = 64 << 20;
    assert!(matches!(client.read(end, PAGE), Err(Failure::Refused(_))));
    assert!(matches!(client.write(end, &[1; PAGE], false), Err(Failure::Refused(_))));
    assert!(matches!(client.trim(end - 4096, 2 * PAGE), Err(Failure::Refused(_))));
    assert!(matches!(client.read(512, 512), Err(Failure::Refused(crate::client::EINVAL))));
    assert_eq!(client.read(end - 4096, PAGE).unwrap(), [0; PAGE]);
    gateway.stop();
}

#[test]
fn an_unknown_key_of_the_configuration_file_gets_a_suggestion() {
    let site = Site::new();
    let config = site.path("gw.toml");
    std::fs::write(&config, "cache_rom = \"1g\"\n").unwrap();
    let (code, text) = site.refused(&["--config", &config.display().to_string()]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("did you mean \"cache_ram\""), "{text}");
}

#[test]
fn sizes_and_names_that_make_no_sense_are_refused() {
    let site = Site::new();
    let pool = site.pool_text();
    for (words, complaint) in [
        (vec!["new", &pool, "1", "--size", "lots"], "is no size"),
        (vec!["new", &pool, "1", "--size", "1k"], "size"),
        (vec!["new", &pool, "0"], "0 is not in 1..=1024"),
        (vec!["mount", &pool, "a/b"], "image name"),
        (vec!["--nbd", "somewhere"], "somewhere"),
        (vec!["--log-size", "1m", "new", &pool, "1"], "write log must hold"),
        (vec!["mont", &pool, "x"], "mount"),
    ] {
        let (code, text) = site.refused(&words);
        assert_eq!(code, 2, "{words:?}: {text}");
        assert!(text.contains(complaint), "{words:?}: {text}");
    }
}

#[test]
fn an_image_that_is_not_there_is_a_negative_answer() {
    let site = Site::new();
    let (code, text) = site.refused(&["mount", &site.pool_text(), "nothing"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("nothing"), "{text}");
}
