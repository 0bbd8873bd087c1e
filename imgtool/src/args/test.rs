use super::*;

fn defaults(pool: &str, image: &str) -> Defaults {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Defaults { pool: some(pool), image: some(image) }
}

fn parse(line: &str, defaults: Defaults) -> Result<Args, UsageError> {
    let words = std::iter::once("imgtool").chain(line.split_whitespace());
    LowArgs::try_parse_from(words).expect("clap takes it").resolve(defaults)
}

fn places(line: &str, defaults: Defaults) -> Result<(String, String), UsageError> {
    let args = parse(line, defaults)?;
    match args.command {
        Command::Info { image } => Ok((args.pool, image.to_string())),
        other => panic!("{other:?}"),
    }
}

#[test]
fn words_flags_and_environment_mean_the_same() {
    let wanted = Ok(("p".to_owned(), "i".to_owned()));
    for line in [
        "info p i",
        "info -p p -i i",
        "-c info p i",
        "-c info -p p i",
        "--cmd info --pool p --img i",
        "info -p p i",
        "info -i i p",
        "-p p info i",
        "--image i info p",
    ] {
        assert_eq!(places(line, Defaults::default()), wanted, "{line}");
    }
    assert_eq!(places("info", defaults("p", "i")), wanted);
    assert_eq!(places("info i", defaults("p", "")), wanted);
    assert_eq!(places("info i", defaults("p", "other")), wanted, "a word beats the environment");
    assert_eq!(places("info p", defaults("", "i")), wanted);
    assert_eq!(places("info p i", defaults("x", "y")), wanted);
    assert_eq!(places("info -p p", defaults("x", "i")), wanted);
    assert_eq!(places("info -p p i", defaults("x", "y")), wanted);
    assert_eq!(places("info -i i p", defaults("x", "y")), wanted);
}

#[test]
fn a_place_given_twice_is_an_error() {
    let twice = |line| parse(line, Defaults::default()).expect_err(line);
    assert!(matches!(twice("info -p p q i"), UsageError::Twice { what: "pool", .. }));
    assert!(matches!(twice("info -i i p j"), UsageError::Twice { what: "image", .. }));
    assert!(matches!(twice("info -p p -i i q"), UsageError::Twice { .. }));
    assert_eq!(twice("-c info p i j"), UsageError::TooMany("j".into()));
    assert_eq!(twice("list p i"), UsageError::TooMany("i".into()));
    assert!(matches!(twice("-c info info p i"), UsageError::TooMany(_)));
}

#[test]
fn what_is_missing_is_named() {
    let missing = |line| parse(line, Defaults::default()).expect_err(line);
    assert_eq!(missing(""), UsageError::NoCommand);
    assert_eq!(missing("list"), UsageError::NoPool);
    assert_eq!(missing("info"), UsageError::NoPool);
    assert_eq!(missing("info p"), UsageError::NoImage);
    assert_eq!(missing("info -p p"), UsageError::NoImage);
    assert_eq!(missing("create p i"), UsageError::NoSize("create"));
    assert_eq!(missing("resize p i"), UsageError::NoSize("resize"));
    assert_eq!(missing("objinfo p i"), UsageError::NoSeq);
    assert_eq!(missing("creat p i"), UsageError::UnknownCommand("creat".into()));
}

#[test]
fn a_listing_takes_its_pool_from_the_word_or_the_environment() {
    let pool = |line, defaults| parse(line, defaults).map(|args| args.pool);
    assert_eq!(pool("list p", defaults("x", "i")), Ok("p".into()));
    assert_eq!(pool("list", defaults("x", "i")), Ok("x".into()));
}

#[test]
fn flags_of_other_commands_are_errors() {
    for line in ["info p i --size 1g", "list p --force", "create p i -s 1g -x", "list p -i i"] {
        let error = parse(line, Defaults::default()).expect_err(line);
        assert!(matches!(error, UsageError::Stray { .. }), "{line}: {error}");
    }
}

#[test]
fn sizes_have_limits() {
    let size = |text: &str| {
        let args = parse(&format!("create p i --size {text}"), Defaults::default())?;
        match args.command {
            Command::Create { size_bytes, .. } => Ok(size_bytes),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(size("100g"), Ok(107_374_182_400));
    assert_eq!(size("1m"), Ok(1 << 20));
    assert_eq!(size("64t"), Ok(64 << 40));
    for text in ["0", "1023k", "65t", "99999999999t"] {
        assert!(matches!(size(text), Err(UsageError::SizeRange(_))), "{text}");
    }
    assert!(matches!(size("1048577"), Err(UsageError::SizeUnit { sector: 4096, .. })));
    for text in ["-1g", "lots", "1x"] {
        assert!(matches!(size(text), Err(UsageError::Size { .. })), "{text}");
    }
}

#[test]
fn sector_sizes_are_two() {
    let sector = |text: &str| {
        let line = format!("create p i -s 1g --sector-size {text}");
        parse(&line, Defaults::default()).map(|args| match args.command {
            Command::Create { sector_size, .. } => sector_size.bytes(),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!((sector("512"), sector("4096"), sector("4k")), (Ok(512), Ok(4096), Ok(4096)));
    assert_eq!(sector("1024"), Err(UsageError::SectorSize("1024".into())));
}

#[test]
fn sequences_are_decimal_or_hexadecimal() {
    assert_eq!(sequence("333"), Some(ObjectSeq(333)));
    assert_eq!(sequence("0x14d"), Some(ObjectSeq(333)));
    assert_eq!(sequence("0X14D"), Some(ObjectSeq(333)));
    for text in ["", "0", "0x", "-1", "+1", "14d", "0x+1", "99999999999999999999"] {
        assert_eq!(sequence(text), None, "{text}");
    }
}

#[test]
fn what_cannot_be_had_is_refused_with_the_reason() {
    let refused = |line| parse(line, Defaults::default()).expect_err(line).to_string();
    assert!(refused("create p i -s 1g --thick").contains("always thin"));
    assert!(refused("-c clone -p p -i i --dest j").contains("not there yet"));
    assert!(refused("info p a/b").contains("image name"));
}
