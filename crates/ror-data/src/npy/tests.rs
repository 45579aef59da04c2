use proptest::prelude::*;

use super::*;

/// A file as NumPy writes it, but for the padding.
fn file(descr: &str, order: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    with_header(
        &format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"),
        values,
    )
}

fn with_header(text: &str, values: &[u8]) -> Vec<u8> {
    let length = (text.len() as u16).to_le_bytes();
    [
        b"\x93NUMPY\x01\x00".as_slice(),
        &length,
        text.as_bytes(),
        values,
    ]
    .concat()
}

fn parse(bytes: &[u8]) -> Result<Array, ErrorKind> {
    read_from(bytes, bytes.len() as u64)
}

fn error(bytes: &[u8]) -> String {
    parse(bytes).unwrap_err().to_string()
}

#[test]
fn written_files_are_numpys_to_the_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npy");
    for (shape, header) in [
        (
            &[3][..],
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }",
        ),
        (
            &[3, 1],
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 1), }",
        ),
    ] {
        write(&path, shape, &[0.0, 1.0, -2.0]).unwrap();
        let values = b"\0\0\0\0\0\0\x80\x3f\0\0\0\xc0";
        let expected = [
            b"\x93NUMPY\x01\x00\x76\x00",
            format!("{header:<117}\n").as_bytes(),
            values,
        ]
        .concat();
        assert_eq!(fs::read(&path).unwrap(), expected);
    }
}

#[test]
fn every_float_type_becomes_float32() {
    let half = file("'<f2'", "False", "(2,)", b"\x00\x3c\x00\xc1");
    assert_eq!(parse(&half).unwrap().data, [1.0, -2.5]);
    let double = file("'<f8'", "False", "()", &0.1f64.to_le_bytes());
    assert_eq!(
        parse(&double).unwrap(),
        Array {
            shape: vec![],
            data: vec![0.1]
        }
    );
    let empty = file("'<f4'", "True", "(0, 99999999999, 99999999999)", b"");
    assert_eq!(
        parse(&empty).unwrap().shape,
        [0, 99_999_999_999, 99_999_999_999]
    );
}

#[test]
fn fortran_order_becomes_c_order() {
    // numpy.asfortranarray(numpy.arange(6).reshape(2, 3)), as float16.
    let two = file(
        "'<f2'",
        "True",
        "(2, 3)",
        b"\x00\x00\x00B\x00<\x00D\x00@\x00E",
    );
    assert_eq!(parse(&two).unwrap().data, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let (n, c, h) = (2, 3, 4);
    let mut values = vec![0.0f32; n * c * h];
    for i in 0..n * c * h {
        let (a, b, d) = (i / (c * h), i / h % c, i % h);
        values[a + n * (b + c * d)] = i as f32;
    }
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let three = parse(&file("'<f4'", "True", "(2, 3, 4)", &bytes)).unwrap();
    assert!(
        three.data.iter().enumerate().all(|(i, v)| *v == i as f32),
        "{three:?}"
    );
}

#[test]
fn headers_of_older_writers_are_read() {
    let keys_in_any_order = with_header(
        "{'shape':(1L,),\"descr\":'<f4','fortran_order':False}  \n",
        b"\0\0\0\0",
    );
    assert_eq!(parse(&keys_in_any_order).unwrap().shape, [1]);
    let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }";
    let length = (text.len() as u32).to_le_bytes();
    let version2 = [
        b"\x93NUMPY\x02\x00".as_slice(),
        &length,
        text.as_bytes(),
        b"\0\0\0\0",
    ]
    .concat();
    assert_eq!(parse(&version2).unwrap().data, [0.0]);
}

#[test]
fn damage_and_foreign_types_are_errors() {
    for (bytes, expected) in [
        (
            b"PK\x03\x04............".to_vec(),
            "it does not begin as one",
        ),
        (b"\x93NUM".to_vec(), "ends within its header"),
        (
            b"\x93NUMPY\x09\x00\x00\x00\x00".to_vec(),
            "format version 9.0 is unknown",
        ),
        (
            b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}".to_vec(),
            "a header of 4294967295 bytes",
        ),
        (
            file("'<i4'", "False", "(1,)", b"1234"),
            "values of type '<i4'; expected float32",
        ),
        (
            file("'>f4'", "False", "(1,)", b"1234"),
            "values of type '>f4'",
        ),
        (
            file("'|u1'", "False", "(4,)", b"1234"),
            "values of type '|u1'",
        ),
        (
            file("[('a', '<f4')]", "False", "(1,)", b"1234"),
            "a structured array",
        ),
        (
            file("'<f4'", "0", "(1,)", b"1234"),
            "fortran_order is neither True nor False",
        ),
        (
            file("'<f4'", "False", "(-1,)", b"1234"),
            "a dimension that is no number",
        ),
        (
            file("'<f4'", "False", "(99999999999999999999,)", b""),
            "a dimension that is no number, or too large",
        ),
        (
            file("'<f4'", "False", "(2,)", b"1234"),
            "does not fill the 4 bytes after the header",
        ),
        (
            file("'<f4'", "False", "(1,)", b"12345678"),
            "does not fill the 8 bytes after the header",
        ),
        (
            file("'<f4'", "False", "(4294967296, 4294967296)", b"1234"),
            "does not fill the 4 bytes",
        ),
        (
            file("'<f4'", "False", "(4611686018427387904,)", b""),
            "does not fill the 0 bytes",
        ),
        (
            with_header("{'descr': '<f4', 'descr': '<f4'}", b""),
            "header key 'descr' twice",
        ),
        (
            with_header("{'descr': '<f4', 'shape': ()}", b"1234"),
            "lacks descr, fortran_order or shape",
        ),
        (with_header("{'x': 1}", b""), "unknown header key 'x'"),
        (with_header("{} {}", b""), "text after"),
        (
            with_header("__import__('os')", b""),
            "the header lacks a '{'",
        ),
    ] {
        let error = error(&bytes);
        assert!(
            error.contains(expected),
            "{error:?} should say {expected:?}"
        );
    }
}

#[test]
fn a_failed_write_leaves_everything_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npy");
    write(&path, &[1], &[1.0]).unwrap();
    let before = fs::read(&path).unwrap();
    assert!(matches!(
        write(&path, &[3], &[1.0]).unwrap_err().kind(),
        ErrorKind::Shape { .. }
    ));
    assert_eq!(fs::read(&path).unwrap(), before);
    let taken = folder.path().join("folder");
    fs::create_dir(&taken).unwrap();
    assert_eq!(write(&taken, &[1], &[1.0]).unwrap_err().path(), taken);
    let missing = folder.path().join("missing/a.npy");
    assert_eq!(write(&missing, &[1], &[1.0]).unwrap_err().path(), missing);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn a_folder_is_no_array() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(
        read(folder.path()).unwrap_err().kind(),
        ErrorKind::NotAFile
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(shape in prop::collection::vec(0usize..6, 0..5), seed in any::<u32>()) {
        let values: usize = shape.iter().product();
        let data: Vec<f32> = (0..values as u32).map(|i| f32::from_bits(i.wrapping_mul(seed) >> 2)).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        write(&path, &shape, &data).unwrap();
        prop_assert_eq!(read(&path).unwrap(), Array { shape, data });
    }
}

proptest! {
    #[test]
    fn no_damage_makes_the_reader_panic(
        damage in prop::collection::vec((0usize..80, any::<u8>()), 1..5),
        end in 0usize..90,
    ) {
        let mut bytes = file("'<f4'", "True", "(2, 1, 2)", &[1; 16]);
        for (at, byte) in damage {
            bytes[at] = byte;
        }
        bytes.truncate(end);
        if let Ok(array) = parse(&bytes) {
            prop_assert!(array.data.len() * 2 <= bytes.len());
        }
    }

    #[test]
    fn no_header_text_makes_the_reader_panic(text in "[{}()',: a-z0-9<>L\\[\\]]{0,60}") {
        let _ = parse(&with_header(&text, b"1234"));
    }
}
