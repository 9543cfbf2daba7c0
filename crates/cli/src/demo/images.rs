//! Small pictures and documents that other programs can open, made from nothing, the same every time.

/// A PNG of `size` × `size` pixels (at most 120): a gradient with a ring, its colours chosen by `seed`.
///
/// Layout: the PNG specification (ISO/IEC 15948), with one stored (uncompressed) deflate block as RFC 1951 §3.2.4 allows.
pub fn png(size: u32, seed: u32) -> Vec<u8> {
    let mut pixels = Vec::new();
    for y in 0..size {
        pixels.push(0); // filter of this line: none
        for x in 0..size {
            let (dx, dy) = (x.abs_diff(size / 2), y.abs_diff(size / 2));
            let ring = (dx * dx + dy * dy) / (size + 1) % 8 == seed % 8;
            let shade = |n: u32| ((x * (n % 5 + 1) + y * (n % 3 + 1) + n * 37) % 256) as u8;
            pixels.extend(if ring {
                [250, 250, 240]
            } else {
                [shade(seed), shade(seed / 5), shade(seed / 7)]
            });
        }
    }
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let eight_bit_rgb = [8, 2, 0, 0, 0];
    chunk(&mut png, b"IHDR", &[&size.to_be_bytes()[..], &size.to_be_bytes(), &eight_bit_rgb].concat());
    chunk(&mut png, b"IDAT", &stored_zlib(&pixels));
    chunk(&mut png, b"IEND", &[]);
    png
}

fn chunk(png: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    let length = u32::try_from(data.len()).expect("pictures are small");
    png.extend(length.to_be_bytes());
    png.extend(kind);
    png.extend(data);
    png.extend(crc32(kind.iter().chain(data)).to_be_bytes());
}

fn stored_zlib(data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("one stored block holds 65535 bytes");
    let mut out = vec![0x78, 0x01, 0x01];
    out.extend(length.to_le_bytes());
    out.extend((!length).to_le_bytes());
    out.extend(data);
    let (a, b) = data.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65521;
        (a, (b + a) % 65521)
    });
    out.extend((b << 16 | a).to_be_bytes());
    out
}

fn crc32<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    !bytes.fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}

/// A PDF of one page with these lines of text (ASCII, without parentheses). Layout: ISO 32000-1, §7.5.
pub fn pdf(lines: &[String]) -> Vec<u8> {
    let text: String = lines.iter().map(|line| format!("({line}) Tj T*\n")).collect();
    let stream = format!("BT /F1 11 Tf 14 TL 60 780 Td\n{text}ET");
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R \
         /Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Courier >> >> >> >>"
            .to_owned(),
        format!("<< /Length {} >>\nstream\n{stream}\nendstream", stream.len()),
    ];
    let mut pdf = "%PDF-1.4\n".to_owned();
    let mut offsets = Vec::new();
    for (at, object) in objects.iter().enumerate() {
        offsets.push(pdf.len());
        pdf.push_str(&format!("{} 0 obj\n{object}\nendobj\n", at + 1));
    }
    let table = pdf.len();
    pdf.push_str(&format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1));
    for offset in offsets {
        pdf.push_str(&format!("{offset:010} 00000 n \n"));
    }
    pdf.push_str(&format!(
        "trailer\n<< /Size {} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n",
        objects.len() + 1
    ));
    pdf.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_of_the_specification_come_out() {
        assert_eq!(crc32(b"123456789".iter()), 0xcbf4_3926);
        let png = png(8, 3);
        assert_eq!(png[12..16], *b"IHDR");
        assert!(png.ends_with(b"IEND\xae\x42\x60\x82"), "the check value of an empty IEND is known");
    }

    #[test]
    fn every_object_of_a_pdf_lies_where_its_table_says() {
        let bytes = pdf(&["one".to_owned(), "two".to_owned()]);
        let text = String::from_utf8(bytes).unwrap();
        let table = text.split("xref\n0 5\n").nth(1).unwrap();
        for (number, line) in table.lines().skip(1).take(4).enumerate() {
            let offset: usize = line[..10].parse().unwrap();
            assert!(text[offset..].starts_with(&format!("{} 0 obj", number + 1)));
        }
    }
}
