//! The fields of spans and events as JSON.

use std::fmt::{Debug, Write};

use tracing::field::{Field, Visit};

use super::escape::Escaped;

/// The fields of a span or an event, by name, each as JSON.
#[derive(Default)]
pub(super) struct RecordedFields(pub(super) Vec<(&'static str, String)>);

impl JsonFields for RecordedFields {
    fn value_of(&mut self, name: &'static str) -> &mut String {
        let Self(fields) = self;
        let index = fields.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            fields.push((name, String::new()));
            fields.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "found or pushed")]
        let value = &mut fields[index].1;
        value.clear();
        value
    }
}

/// Where fields are written to.
pub(super) trait JsonFields {
    /// Begins a field; its value is to be added to the text that is returned.
    fn value_of(&mut self, name: &'static str) -> &mut String;
}

/// Writes each field that it is shown.
pub(super) struct FieldWriter<'a, F>(pub(super) &'a mut F);

impl<F: JsonFields> FieldWriter<'_, F> {
    fn write(&mut self, field: &Field, write: impl FnOnce(&mut String) -> std::fmt::Result) {
        let name = field.name();
        // What the crate `log` says of the place; it stands elsewhere in a line.
        if !name.starts_with("log.") {
            // Writing to a string does not fail, and a value that cannot be shown is cut off.
            let _ = write(self.0.value_of(name.strip_prefix("r#").unwrap_or(name)));
        }
    }
}

impl<F: JsonFields> Visit for FieldWriter<'_, F> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.write(field, |out| match value.is_finite() {
            true => write!(out, "{value}"),
            false => out.write_str("null"),
        });
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field, |out| write!(out, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, |out| write!(out, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, |out| write!(out, "{value}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.write(field, |out| {
            out.push('"');
            let written = write!(Escaped(out), "{value:?}");
            out.push('"');
            written
        });
    }
}
