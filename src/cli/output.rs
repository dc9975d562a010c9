//! Results on standard output: lines, tables, JSON.

use std::io::{self, BufWriter, StdoutLock, Write};

use serde::Serialize;

use super::failure::CliError;

/// Bytes gathered before a write.
const BUFFER_BYTES: usize = 256 * 1024;

/// Standard output, buffered. Call [`flush`](Self::flush) before waiting for anything.
pub(crate) struct Output {
    to: BufWriter<StdoutLock<'static>>,
}

impl Output {
    /// Takes standard output.
    pub(crate) fn new() -> Self {
        Self {
            to: BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock()),
        }
    }

    /// One line of any bytes.
    pub(crate) fn line(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.to.write_all(bytes)?;
        self.to.write_all(b"\n")?;
        Ok(())
    }

    /// One JSON object on a line.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        serde_json::to_writer(&mut self.to, value).map_err(io::Error::from)?;
        self.to.write_all(b"\n")?;
        Ok(())
    }

    /// Columns under their names; numbers to the right.
    pub(crate) fn table<const N: usize>(
        &mut self,
        names: [&str; N],
        rows: &[[String; N]],
    ) -> Result<(), CliError> {
        let widths = names.map(str::len);
        let widths = rows.iter().fold(widths, |mut widths, row| {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
            widths
        });
        let header = names.map(str::to_uppercase);
        for row in std::iter::once(&header).chain(rows) {
            let cells = row.iter().zip(widths).map(|(cell, width)| {
                if cell.starts_with(|c: char| c.is_ascii_digit()) && !cell.contains('T') {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            self.line(line.trim_end().as_bytes())?;
        }
        Ok(())
    }

    /// Hands everything to the reader.
    pub(crate) fn flush(&mut self) -> Result<(), CliError> {
        self.to.flush()?;
        Ok(())
    }
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 with padding (RFC 4648, section 4), for bytes that are no text.
pub(crate) fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let index = (bits >> (18 - 6 * place)) & 63;
            let letter = BASE64.get(index as usize).copied().unwrap_or(b'=');
            let is_padding = place > chunk.len();
            text.push(if is_padding { '=' } else { char::from(letter) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_follows_the_vectors_of_rfc_4648() {
        for (bytes, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), expected);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfb]), "//77");
    }
}
