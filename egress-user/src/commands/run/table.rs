//! Tables of the summary.

/// How it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// For a terminal.
    Colour,
    /// For everything else, and for `NO_COLOR`.
    Plain,
}

/// Columns of text.
pub(super) struct Table<const COLUMNS: usize> {
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// A table with only its header.
    pub(super) fn new(header: [&str; COLUMNS]) -> Self {
        Self { rows: vec![header.map(str::to_owned)] }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, row: [String; COLUMNS]) {
        self.rows.push(row);
    }

    /// The rows, the first of them the header, which has the colour.
    pub(super) fn render(&self, style: Style, colour: &str) -> String {
        let mut widths = [0; COLUMNS];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let lines = self.rows.iter().enumerate().map(|(index, row)| {
            let cells = widths.iter().zip(row).filter(|(width, _)| **width > 0);
            let line = cells.map(|(width, cell)| format!("  {cell:width$}")).collect::<Vec<_>>().concat();
            match (style, index) {
                (Style::Colour, 0) => format!("\x1b[1;{colour}m{}\x1b[0m\n", line.trim_end()),
                (Style::Colour | Style::Plain, _) => format!("{}\n", line.trim_end()),
            }
        });
        lines.collect()
    }
}
