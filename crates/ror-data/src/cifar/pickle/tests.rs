use proptest::prelude::*;

use super::*;

/// `{"label_names": ["cat", "dog"], "num_vis": 3072}`, as the named Python and protocol write it.
const WRITTEN: [(&str, &[u8]); 6] = [
    ("2, 0", b"(dp1\nS'num_vis'\np2\nI3072\nsS'label_names'\np3\n(lp4\nS'cat'\np5\naS'dog'\np6\nas."),
    ("2, 1", b"}q\x00(U\x0blabel_namesq\x01]q\x02(U\x03catq\x03U\x03dogq\x04eU\x07num_visq\x05M\x00\x0cu."),
    ("2, 2", b"\x80\x02}q\x00(U\x0blabel_namesq\x01]q\x02(U\x03catq\x03U\x03dogq\x04eU\x07num_visq\x05M\x00\x0cu."),
    (
        "3, 0",
        b"(dp0\nc_codecs\nencode\np1\n(Vlabel_names\np2\nVlatin1\np3\ntp4\nRp5\n(lp6\ng1\n(Vcat\np7\ng3\ntp8\nRp9\na\
          g1\n(Vdog\np10\ng3\ntp11\nRp12\nasg1\n(Vnum_vis\np13\ng3\ntp14\nRp15\nI3072\ns.",
    ),
    (
        "3, 1",
        b"}q\x00(c_codecs\nencode\nq\x01(X\x0b\x00\x00\x00label_namesq\x02X\x06\x00\x00\x00latin1q\x03tq\x04Rq\x05]\
          q\x06(h\x01(X\x03\x00\x00\x00catq\x07h\x03tq\x08Rq\th\x01(X\x03\x00\x00\x00dogq\nh\x03tq\x0bRq\x0ceh\x01(X\
          \x07\x00\x00\x00num_visq\rh\x03tq\x0eRq\x0fM\x00\x0cu.",
    ),
    (
        "3, 2",
        b"\x80\x02}q\x00(c_codecs\nencode\nq\x01X\x0b\x00\x00\x00label_namesq\x02X\x06\x00\x00\x00latin1q\x03\x86q\x04\
          Rq\x05]q\x06(h\x01X\x03\x00\x00\x00catq\x07h\x03\x86q\x08Rq\th\x01X\x03\x00\x00\x00dogq\nh\x03\x86q\x0bRq\
          \x0ceh\x01X\x07\x00\x00\x00num_visq\rh\x03\x86q\x0eRq\x0fM\x00\x0cu.",
    ),
];

#[test]
fn every_python_and_protocol_reads_the_same() {
    for (writer, bytes) in WRITTEN {
        let pickle = Pickle::read(bytes).unwrap_or_else(|e| panic!("{writer}: {e}"));
        let names = pickle.items(pickle.get("label_names").unwrap()).unwrap();
        let names: Vec<_> = names
            .iter()
            .map(|name| pickle.bytes(*name).unwrap())
            .collect();
        assert_eq!(names, [&b"cat"[..], b"dog"], "{writer}");
        assert_eq!(
            pickle.int(pickle.get("num_vis").unwrap()),
            Some(3072),
            "{writer}"
        );
        assert_eq!(pickle.get("absent"), None);
    }
}

#[test]
fn truncated_pickles_are_errors() {
    for (writer, bytes) in WRITTEN {
        for end in 0..bytes.len() {
            assert!(
                Pickle::read(&bytes[..end]).is_err(),
                "{writer}, {end} bytes"
            );
        }
    }
}

#[test]
fn strings_of_every_protocol_hold_any_byte() {
    let root = |bytes: &[u8]| {
        let pickle = Pickle::read(bytes).unwrap();
        pickle.bytes(pickle.root).unwrap().into_owned()
    };
    // Python 2's repr('\x00\n\\\'"\xff') and of "it's", Python 3's protocol 0 of bytes.
    assert_eq!(root(b"S'\\x00\\n\\\\\\'\"\\xff'\n."), b"\x00\n\\'\"\xff");
    assert_eq!(root(b"S\"it's\"\n."), b"it's");
    assert_eq!(
        root(b"c_codecs\nencode\n(V\\u0000\x01\\u005c\xe9\\u000a\nVlatin1\ntR."),
        b"\x00\x01\\\xe9\n"
    );
    assert_eq!(root(b"c__builtin__\nbytes\n)R."), b"");
    assert_eq!(root(b"T\x02\x00\x00\x00\xff\x00."), b"\xff\x00");
}

#[test]
fn integers_of_every_protocol_are_read() {
    let root = |bytes: &[u8]| {
        let pickle = Pickle::read(bytes).unwrap();
        pickle.int(pickle.root).unwrap()
    };
    assert_eq!(root(b"I-7\n."), -7);
    assert_eq!(root(b"L12L\n."), 12);
    assert_eq!(root(b"J\xff\xff\xff\xff."), -1);
    assert_eq!(root(b"\x8a\x02\x00\xff."), -256);
    assert_eq!(root(b"\x8a\x00."), 0);
    assert!(Pickle::read(b"\x8a\x09123456789.").is_err());
}

#[test]
fn calls_are_recorded_and_never_made() {
    let pickle = Pickle::read(b"cos\nsystem\n(S'true'\ntR.").unwrap();
    assert!(matches!(
        pickle.value(pickle.root),
        Value::Call { state: None, .. }
    ));
    assert_eq!(pickle.bytes(pickle.root), None);
}

#[test]
fn malformed_pickles_say_what_and_where() {
    for (bytes, expected) in [
        (
            &b"\x80\x04."[..],
            "protocol above 2 (save it again with protocol=2) at byte 2",
        ),
        (b".", "a value is missing at byte 1"),
        (b"N(.", "a value is missing at byte 3"),
        (b"N(\x85.", "a value is missing at byte 3"),
        (b"t", "a mark is missing at byte 1"),
        (b"h\x00", "a memo entry is missing at byte 2"),
        (b"NNa", "an element for something that is no list at byte 3"),
        (b"}(Nu", "a dictionary key without a value at byte 4"),
        (b"N)b", "state for something that is no object at byte 3"),
        (b"T\xff\xff\xff\xffab", "truncated at byte 5"),
        (
            b"\x95",
            "an opcode that CIFAR's pickles do not use at byte 1",
        ),
    ] {
        assert_eq!(Pickle::read(bytes).unwrap_err(), expected);
    }
    let many = vec![b'N'; MAX_VALUES + 1];
    assert!(Pickle::read(&many).unwrap_err().starts_with("more values"));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Pickle::read(&bytes);
    }

    /// Random bytes rarely get past the first opcodes; damaged pickles do.
    #[test]
    fn no_damage_makes_the_reader_panic(
        which in 0..WRITTEN.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = WRITTEN[which].1.to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(pickle) = Pickle::read(&bytes) {
            for key in ["label_names", "num_vis"] {
                let _ = pickle.get(key).map(|id| (pickle.items(id).is_some(), pickle.bytes(id).is_some()));
            }
        }
    }
}
