use proptest::prelude::*;

use super::*;

fn user() -> Environment {
    Environment {
        pool_root: None,
        ceph_conf: None,
        ceph_user: None,
        ceph_keyring: None,
        system_ceph_conf: None,
        data_home: None,
        home: Some("/home/ada".into()),
        is_root: false,
        current_dir: "/srv".into(),
    }
}

fn root() -> Environment {
    Environment { is_root: true, ..user() }
}

fn directory(text: &str, environment: &Environment) -> String {
    match PoolSpec::parse(text, environment).unwrap().target() {
        PoolTarget::Directory(path) => path.display().to_string(),
        other => panic!("{text} is {other}"),
    }
}

#[test]
fn paths_are_directories() {
    for (text, path) in [
        ("/srv/pool", "/srv/pool"),
        ("./pool", "/srv/pool"),
        (".", "/srv"),
        ("../pool", "/srv/../pool"),
        ("pools/a", "/srv/pools/a"),
        ("pools/a:b", "/srv/pools/a:b"),
        ("~", "/home/ada"),
        ("~/pool", "/home/ada/pool"),
        ("~//etc", "/home/ada/etc"),
        ("file:///srv/a%20b", "/srv/a%20b"),
    ] {
        assert_eq!(directory(text, &user()), path, "{text}");
    }
}

#[test]
fn bare_words_lie_under_the_root_of_who_asks() {
    assert_eq!(directory("demo", &root()), "/var/lib/lsvd/pools/demo");
    assert_eq!(directory("demo", &user()), "/home/ada/.local/share/lsvd/pools/demo");
    let moved = Environment { data_home: Some("/data".into()), ..user() };
    assert_eq!(directory("demo", &moved), "/data/lsvd/pools/demo");
    let relative = Environment { data_home: Some("data".into()), ..user() };
    assert_eq!(directory("demo", &relative), "/home/ada/.local/share/lsvd/pools/demo");
    let set = Environment { pool_root: Some("here".into()), ..root() };
    assert_eq!(directory("demo", &set), "/srv/here/demo");
}

#[test]
fn explain_says_which_pool_and_why() {
    let explain =
        |text, environment: &Environment| PoolSpec::parse(text, environment).unwrap().explain();
    assert_eq!(
        explain("demo", &root()),
        "pool `demo`: embedded store in /var/lib/lsvd/pools/demo \
         (no ceph.conf found; LSVD_POOL_ROOT changes the root)"
    );
    assert_eq!(
        explain("./demo", &root()),
        "pool `./demo`: embedded store in /srv/demo (named by its path)"
    );
    let ceph = Environment { system_ceph_conf: Some("/etc/ceph/ceph.conf".into()), ..root() };
    assert_eq!(
        explain("rbd", &ceph),
        "pool `rbd`: Ceph pool rbd (/etc/ceph/ceph.conf found; write ./rbd for a directory)"
    );
    assert_eq!(
        explain("s3://b/x/y/", &root()),
        "pool `s3://b/x/y/`: prefix x/y/ of S3 bucket b (named by its URL)"
    );
}

#[test]
fn ceph_conf_of_the_environment_goes_before_the_systems_and_must_exist() {
    let scratch = tempfile::NamedTempFile::new().unwrap();
    let environment = Environment { ceph_conf: Some(scratch.path().into()), ..user() };
    let spec = PoolSpec::parse("rbd", &environment).unwrap();
    assert_eq!(spec.target().to_string(), "rados:rbd");
    assert!(spec.explain().contains(scratch.path().to_str().unwrap()));

    let missing = Environment { ceph_conf: Some("/nowhere/ceph.conf".into()), ..root() };
    let error = PoolSpec::parse("rbd", &missing).unwrap_err();
    assert!(matches!(error, PoolError::NoCephConf { .. }), "{error}");
    assert_eq!(directory("./rbd", &missing), "/srv/rbd", "a path needs no Ceph");
}

#[test]
fn errors_say_what_to_write_instead() {
    for (text, hint) in [
        ("", "./pool"),
        ("file://pool/a", "file:///pool/a"),
        ("file:pool", "./pool"),
        ("FILE:///a", "file:///a"),
        ("ceph:rbd", "rados:rbd"),
        ("rados:", "rados:POOL"),
        ("rados://rbd", "rados:POOL"),
        ("rados:a/b/c", "rados:POOL/NAMESPACE"),
        ("https://s3.example.org/b", "s3://BUCKET"),
        ("s3:bucket", "s3://BUCKET"),
        ("s3:///x", "s3://BUCKET"),
        ("s3://b//x", "s3://BUCKET/PREFIX"),
        ("gopher:x", "./gopher:x"),
        ("my pool", "./my pool"),
        ("-rf", "./-rf"),
        ("~eve/pool", "its path"),
    ] {
        let error = PoolSpec::parse(text, &user()).unwrap_err().to_string();
        assert!(error.contains(hint), "{text}: {error}");
    }
    let homeless = Environment { home: None, ..user() };
    for text in ["demo", "~/demo"] {
        let error = PoolSpec::parse(text, &homeless).unwrap_err();
        assert!(matches!(error, PoolError::NoHome { .. }), "{text}: {error}");
    }
}

#[test]
fn what_this_build_does_not_speak_is_said_at_opening() {
    let error = PoolSpec::parse("s3://bucket/prefix", &user()).unwrap().open(true).unwrap_err();
    assert!(matches!(error, PoolError::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("use a directory"), "{error}");
}

#[test]
fn a_cluster_is_reached_as_the_environment_says() {
    let environment = Environment {
        ceph_conf: Some("lab/ceph.conf".into()),
        ceph_user: Some("client.lsvd".to_owned()),
        ceph_keyring: Some("/keys/lsvd".into()),
        ..user()
    };
    let options = PoolSpec::parse("rados:rbd/ns", &environment).unwrap().ceph.options();
    assert_eq!(options.conf, Some("/srv/lab/ceph.conf".into()));
    assert_eq!(options.user, "lsvd");
    assert_eq!(options.keyring, Some("/keys/lsvd".into()));
    assert_eq!(PoolSpec::parse("rados:rbd", &user()).unwrap().ceph.options().user, "admin");
}

#[test]
fn a_directory_is_created_only_on_request() {
    let scratch = tempfile::tempdir().unwrap();
    let text = scratch.path().join("a/b").display().to_string();
    let spec = PoolSpec::parse(&text, &user()).unwrap();
    let error = spec.open(false).unwrap_err();
    assert!(matches!(error, PoolError::NotFound { .. }), "{error}");
    spec.open(true).unwrap();
    assert_eq!(spec.open(false).unwrap().describe(), text);
}

proptest! {
    #[test]
    fn parsing_never_panics_and_the_canonical_spelling_keeps_its_meaning(
        text in "(file:///|rados:|s3://|\\.|~|/|)[a-zA-Z0-9._~:/ -]{0,24}",
    ) {
        if let Ok(spec) = PoolSpec::parse(&text, &user()) {
            let canonical = spec.target().to_string();
            let again = PoolSpec::parse(&canonical, &root()).unwrap();
            prop_assert_eq!(again.target(), spec.target());
        }
    }
}
