use image::Rgb;
use proptest::prelude::*;

use super::*;

fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Left half red, right half blue.
fn halves(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, _| {
        Rgb(if x < width / 2 {
            [255, 0, 0]
        } else {
            [0, 0, 255]
        })
    })
}

fn size(height: usize, width: usize) -> Size {
    Size::new(height, width).unwrap()
}

/// A PNG that claims a size, with sound checksums and hardly any data.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |name: &[u8; 4], data: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(name);
        crc.update(data);
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend([name.as_slice(), data, &crc.sum().to_be_bytes()].concat());
    };
    chunk(
        b"IHDR",
        &[
            &width.to_be_bytes()[..],
            &height.to_be_bytes(),
            &[8, 2, 0, 0, 0],
        ]
        .concat(),
    );
    chunk(b"IDAT", b"\x78\x9c\x03\x00\x00\x00\x00\x01");
    chunk(b"IEND", b"");
    bytes
}

#[test]
fn png_keeps_every_pixel() {
    let image = halves(5, 3);
    let decoded = Image::decode(&encode(image.clone(), ImageFormat::Png)).unwrap();
    assert_eq!(decoded.pixels(), image.as_raw().as_slice());
    assert_eq!(
        (decoded.size(), decoded.original()),
        (size(3, 5), size(3, 5))
    );
    assert_eq!(decoded.size().to_string(), "5 x 3");
}

#[test]
fn grey_alpha_and_16_bits_become_rgb_bytes() {
    let grey = image::ImageBuffer::from_pixel(1, 1, image::Luma([0x8080u16]));
    let alpha = image::RgbaImage::from_pixel(1, 1, image::Rgba([1, 2, 3, 0]));
    let rgb16 = image::ImageBuffer::from_pixel(1, 1, Rgb([0u16, 0x0101, 0xFFFF]));
    for (bytes, expected) in [
        (encode(grey, ImageFormat::Png), [128, 128, 128]),
        (encode(alpha, ImageFormat::Png), [1, 2, 3]),
        (
            encode(DynamicImage::ImageRgb16(rgb16), ImageFormat::Png),
            [0, 1, 255],
        ),
        (
            encode(
                image::GrayImage::from_pixel(9, 9, image::Luma([77])),
                ImageFormat::Jpeg,
            ),
            [77, 77, 77],
        ),
    ] {
        assert_eq!(Image::decode(&bytes).unwrap().pixels()[..3], expected);
    }
}

#[test]
fn the_exif_orientation_is_applied() {
    let jpeg = encode(halves(32, 16), ImageFormat::Jpeg);
    // APP1 with one entry, tag 0x0112: turned a quarter clockwise to be upright.
    let exif = b"\xff\xe1\x00\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let turned = Image::decode(&[&jpeg[..2], exif, &jpeg[2..]].concat()).unwrap();
    assert_eq!(turned.size(), size(32, 16));
    let [top, bottom] = [&turned.pixels()[..3], &turned.pixels()[31 * 16 * 3..][..3]];
    assert!(top[0] > 200 && top[2] < 50, "{top:?}");
    assert!(bottom[2] > 200 && bottom[0] < 50, "{bottom:?}");
}

#[test]
fn fitting_cuts_the_centre_out_of_the_longer_side() {
    // Red, then 4 x 4 of green, then blue.
    let strip = RgbImage::from_fn(12, 4, |x, _| {
        Rgb([[255, 0, 0], [0, 255, 0], [0, 0, 255]][x as usize / 4])
    });
    let wide = Image::decode(&encode(strip.clone(), ImageFormat::Png)).unwrap();
    let tall = Image::decode(&encode(image::imageops::rotate90(&strip), ImageFormat::Png)).unwrap();
    for image in [wide, tall] {
        let original = image.size();
        for target in [size(4, 4), size(2, 2), size(8, 8)] {
            let fitted = image.clone().fit(target);
            assert_eq!(fitted.size(), target);
            assert_eq!(fitted.original(), original);
            assert!(
                fitted
                    .pixels()
                    .as_chunks::<3>()
                    .0
                    .iter()
                    .all(|pixel| *pixel == [0, 255, 0])
            );
        }
        assert_eq!(image.clone().fit(original), image);
    }
}

#[test]
fn shrinking_averages_over_the_pixels_it_merges() {
    let checks = RgbImage::from_fn(64, 64, |x, y| {
        Rgb([if (x + y) % 2 == 0 { 0 } else { 255 }; 3])
    });
    let small = Image::new(checks).unwrap().fit(size(8, 8));
    assert!(
        small.pixels().iter().all(|p| (120..=136).contains(p)),
        "{:?}",
        small.pixels()
    );
}

#[test]
fn files_that_are_no_whole_image_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.jpg");
    let open = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Image::open(&path).unwrap_err()
    };
    let jpeg = encode(halves(32, 32), ImageFormat::Jpeg);
    let png = encode(halves(32, 32), ImageFormat::Png);
    assert!(matches!(open(b"").kind(), ErrorKind::EmptyFile));
    assert!(matches!(open(b"only words").kind(), ErrorKind::NotAnImage));
    assert!(matches!(
        open(b"GIF89a.......").kind(),
        ErrorKind::NotAnImage
    ));
    assert!(matches!(
        open(&jpeg[..jpeg.len() - 1]).kind(),
        ErrorKind::Truncated
    ));
    assert!(matches!(
        open(&png[..png.len() - 20]).kind(),
        ErrorKind::Damaged(_)
    ));
    assert_eq!(
        open(b"only words").to_string(),
        format!(
            "{}: not an image: the content is neither JPEG nor PNG",
            path.display()
        )
    );
    assert!(matches!(
        Image::open(folder.path()).unwrap_err().kind(),
        ErrorKind::NotAFile
    ));
    let missing = folder.path().join("missing.png");
    assert_eq!(Image::open(&missing).unwrap_err().path(), missing);
}

#[test]
fn absurd_dimensions_are_refused_before_memory_is_taken() {
    for (width, height) in [(1 << 30, 1 << 30), (1, 1 << 20), (30_000, 30_000)] {
        let error = Image::decode(&png_header(width, height)).unwrap_err();
        assert!(matches!(error, ErrorKind::ImageTooLarge { .. }), "{error}");
    }
    assert!(matches!(
        Image::decode(&png_header(100, 100)).unwrap_err(),
        ErrorKind::Damaged(_)
    ));
    assert!(Size::new(0, 1).is_none() && Size::new(1, 40_000).is_none());
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..3usize) {
        let start: &[u8] = [&b""[..], b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"][kind];
        let _ = Image::decode(&[start, &bytes].concat());
    }

    #[test]
    fn no_damage_makes_the_decoder_panic(
        png in any::<bool>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        end in any::<prop::sample::Index>(),
    ) {
        let format = if png { ImageFormat::Png } else { ImageFormat::Jpeg };
        let mut bytes = encode(halves(24, 17), format);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(end.index(bytes.len() + 1));
        let _ = Image::decode(&bytes);
    }
}
