//! Results of simple statements: text cells, one allocation per row.

use super::error::WireError;

/// The rows of one statement.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    columns: Vec<String>,
    rows: Vec<Row>,
}

/// One row. Cells are text as the server wrote it; bytes that are no UTF-8 (in SQL_ASCII databases) are kept as
/// [`text`](super::text) says.
#[derive(Debug, Clone)]
pub struct Row {
    data: Vec<u8>,
    /// Start and end in `data`; `None` for NULL.
    cells: Vec<Option<(usize, usize)>>,
}

impl Rows {
    pub fn columns(&self) -> &[String] {
        &self.columns
    }
    pub fn len(&self) -> usize {
        self.rows.len()
    }
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
    pub fn iter(&self) -> std::slice::Iter<'_, Row> {
        self.rows.iter()
    }

    /// Reads a RowDescription.
    pub(super) fn described(body: &[u8]) -> Result<Rows, WireError> {
        let mut rest = body.get(2..).ok_or_else(malformed)?;
        let mut columns = Vec::new();
        while !rest.is_empty() {
            let end = rest.iter().position(|b| *b == 0).ok_or_else(malformed)?;
            columns.push(String::from_utf8_lossy(&rest[..end]).into_owned());
            rest = rest.get(end + 19..).ok_or_else(malformed)?;
        }
        Ok(Rows { columns, rows: Vec::new() })
    }

    /// Reads a DataRow.
    pub(super) fn push(&mut self, body: &[u8]) -> Result<(), WireError> {
        let mut cells = Vec::with_capacity(self.columns.len());
        let mut at = 2;
        while at < body.len() {
            let length = body.get(at..at + 4).ok_or_else(malformed)?;
            let length = i32::from_be_bytes([length[0], length[1], length[2], length[3]]);
            at += 4;
            cells.push(match usize::try_from(length) {
                Ok(length) => {
                    let end = at + length;
                    body.get(at..end).ok_or_else(malformed)?;
                    let cell = (at, end);
                    at = end;
                    Some(cell)
                }
                Err(_) => None,
            });
        }
        self.rows.push(Row { data: body.to_vec(), cells });
        Ok(())
    }
}

impl<'a> IntoIterator for &'a Rows {
    type Item = &'a Row;
    type IntoIter = std::slice::Iter<'a, Row>;
    fn into_iter(self) -> Self::IntoIter {
        self.rows.iter()
    }
}

impl Row {
    /// The cell's bytes; `None` for NULL (and for a column that is not there).
    pub fn bytes(&self, column: usize) -> Option<&[u8]> {
        let (start, end) = (*self.cells.get(column)?)?;
        Some(&self.data[start..end])
    }

    /// The cell's text; `None` for NULL.
    pub fn opt(&self, column: usize) -> Option<String> {
        self.bytes(column).map(super::text::decode)
    }

    /// The cell's text; empty for NULL.
    pub fn text(&self, column: usize) -> String {
        self.opt(column).unwrap_or_default()
    }

    /// `t` is true.
    pub fn bool(&self, column: usize) -> bool {
        self.bytes(column) == Some(b"t")
    }

    /// A whole number.
    pub fn int(&self, column: usize) -> Result<i64, WireError> {
        let text = self.text(column);
        text.parse().map_err(|_| WireError::protocol(format!("{text:?} where a number was expected")))
    }
}

fn malformed() -> WireError {
    WireError::protocol("a malformed result row")
}

/// The count at the end of a command's tag: `INSERT 0 5`, `COPY 5`, `SELECT 5`.
pub(super) fn touched(body: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(body.strip_suffix(&[0]).unwrap_or(body));
    text.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0)
}
