//! Documents in Markdown, as man pages say it.

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// A part of a document: what stands below a heading, as far as the next one of its level or above.
pub(crate) struct Section<'a> {
    /// The heading, without marks.
    pub(crate) heading: String,
    /// The heading's level, from 1.
    pub(crate) level: usize,
    events: Vec<Event<'a>>,
}

fn parse(text: &str) -> impl Iterator<Item = Event<'_>> {
    Parser::new_ext(text, Options::ENABLE_TABLES)
}

/// The sections of a document, those within others too, in order.
pub(crate) fn sections(text: &str) -> Vec<Section<'_>> {
    let events: Vec<Event<'_>> = parse(text).collect();
    let mut sections = Vec::new();
    for (at, event) in events.iter().enumerate() {
        let Event::Start(Tag::Heading { level, .. }) = event else { continue };
        let rest = events.get(at..).unwrap_or_default();
        let heading =
            rest.iter().take_while(|event| !matches!(event, Event::End(TagEnd::Heading(_))));
        let heading: String = heading.filter_map(text_of).collect();
        let body = rest.iter().skip_while(|event| !matches!(event, Event::End(TagEnd::Heading(_))));
        let ends = |event: &&Event<'_>| matches!(event, Event::Start(Tag::Heading { level: next, .. }) if next <= level);
        let body = body.skip(1).take_while(|event| !ends(event)).cloned().collect();
        sections.push(Section { heading, level: *level as usize, events: body });
    }
    sections
}

impl Section<'_> {
    /// What stands here before the first heading within.
    pub(crate) fn own(&self) -> Section<'_> {
        let inner = |event: &&Event<'_>| matches!(event, Event::Start(Tag::Heading { .. }));
        Section {
            heading: self.heading.clone(),
            level: self.level,
            events: self.events.iter().take_while(|event| !inner(event)).cloned().collect(),
        }
    }

    /// As a section of a man page.
    pub(crate) fn headed(&self) -> String {
        format!(".SH \"{}\"\n{}", escaped(&self.heading), self.roff())
    }

    /// As a part of a man page.
    pub(crate) fn roff(&self) -> String {
        roff(self.events.iter().cloned())
    }

    /// Its tables, each with its head as the first row.
    pub(crate) fn tables(&self) -> Vec<Vec<Vec<Cell>>> {
        let mut tables: Vec<Vec<Vec<Cell>>> = Vec::new();
        let mut cell: Option<Cell> = None;
        for event in &self.events {
            match event {
                Event::Start(Tag::Table(_)) => tables.push(Vec::new()),
                Event::Start(Tag::TableHead | Tag::TableRow) => {
                    tables.last_mut().into_iter().for_each(|rows| rows.push(Vec::new()));
                }
                Event::Start(Tag::TableCell) => cell = Some(Cell::new()),
                Event::End(TagEnd::TableCell) => {
                    let row = tables.last_mut().and_then(|rows| rows.last_mut());
                    row.into_iter().for_each(|row| row.extend(cell.take()));
                }
                event => {
                    if let (Some(cell), Some(text)) = (&mut cell, text_of(event)) {
                        cell.push_str(text);
                    }
                }
            }
        }
        tables
    }
}

/// A cell of a table, without marks.
pub(crate) type Cell = String;

fn text_of<'a>(event: &'a Event<'_>) -> Option<&'a str> {
    match event {
        Event::Text(text) | Event::Code(text) => Some(text),
        Event::SoftBreak | Event::HardBreak => Some(" "),
        _ => None,
    }
}

/// Text that is nothing but text to troff.
pub(crate) fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    let lines = text.split('\n').map(|line| match line.starts_with('.') {
        true => format!("\\&{line}"),
        false => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What is within a line; `None` for what is not.
fn inline(event: &Event<'_>) -> Option<String> {
    Some(match event {
        Event::Text(text) => escaped(text),
        Event::Code(text) => format!("\\fB{}\\fR", escaped(text)),
        Event::SoftBreak => "\n".to_owned(),
        Event::HardBreak => "\n.br\n".to_owned(),
        Event::Start(Tag::Strong) => "\\fB".to_owned(),
        Event::Start(Tag::Emphasis) => "\\fI".to_owned(),
        Event::End(TagEnd::Strong | TagEnd::Emphasis) => "\\fR".to_owned(),
        Event::Start(Tag::Link { .. }) => String::new(),
        Event::End(TagEnd::Link) => String::new(),
        _ => return None,
    })
}

fn roff<'a>(events: impl Iterator<Item = Event<'a>>) -> String {
    let mut page = Page::default();
    events.for_each(|event| page.event(event));
    page.text
}

#[derive(Default)]
struct Page {
    text: String,
    /// How many lists this is within, and the number of the next item of each.
    lists: Vec<Option<u64>>,
    /// The paragraph begins a list's item, which has begun already.
    in_item: bool,
    /// The heads of the table's columns.
    heads: Vec<String>,
    column: usize,
    in_head: bool,
    /// A heading has just ended.
    headed: bool,
    /// What a link leads to, where it is worth being told.
    links: Vec<Option<String>>,
    code: bool,
}

impl Page {
    fn line(&mut self, request: &str) {
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push('\n');
        }
        self.text.push_str(request);
        self.text.push('\n');
    }

    fn event(&mut self, event: Event<'_>) {
        let headed = matches!(event, Event::End(TagEnd::Heading(_)));
        self.part(event);
        self.headed = headed;
    }

    fn part(&mut self, event: Event<'_>) {
        match event {
            Event::Start(Tag::Paragraph) => match std::mem::take(&mut self.in_item) {
                true => {}
                // What follows a heading needs no distance.
                false if self.text.is_empty() || self.headed => {}
                false => self.line(".PP"),
            },
            Event::End(TagEnd::Paragraph) => self.text.push('\n'),
            Event::Start(Tag::Heading { .. }) => {
                self.line(".SS");
                self.text.pop();
                self.text.push(' ');
            }
            Event::End(TagEnd::Heading(_)) => self.text.push('\n'),
            Event::Start(Tag::CodeBlock(_)) => {
                self.line(".PP\n.RS 4\n.nf");
                self.code = true;
            }
            Event::End(TagEnd::CodeBlock) => {
                self.code = false;
                self.line(".fi\n.RE");
            }
            Event::Text(text) if self.code => self.text.push_str(&escaped(&text)),
            Event::Start(Tag::List(first)) => {
                if !self.lists.is_empty() {
                    self.line(".RS 4");
                }
                self.lists.push(first);
            }
            Event::End(TagEnd::List(_)) => {
                self.lists.pop();
                if !self.lists.is_empty() {
                    self.line(".RE");
                }
            }
            Event::Start(Tag::Item) => {
                let request = match self.lists.last_mut() {
                    Some(Some(number)) => {
                        *number += 1;
                        format!(".IP {}. 4", *number - 1)
                    }
                    _ => ".IP \\(bu 2".to_owned(),
                };
                self.line(&request);
                self.in_item = true;
            }
            Event::End(TagEnd::Item) => {
                self.in_item = false;
                self.text.push('\n');
            }
            Event::Start(Tag::Link { dest_url, .. }) => {
                let outside = dest_url.starts_with("http");
                self.links.push(outside.then(|| dest_url.to_string()));
            }
            Event::End(TagEnd::Link) => {
                if let Some(Some(address)) = self.links.pop() {
                    self.text.push_str(&format!(" <{}>", escaped(&address)));
                }
            }
            event => self.table(event),
        }
    }

    /// A row is a term with what is said of it; the heads of further columns stand before what they say.
    fn table(&mut self, event: Event<'_>) {
        match event {
            Event::Start(Tag::Table(_)) => self.heads.clear(),
            Event::Start(Tag::TableHead) => self.in_head = true,
            Event::End(TagEnd::TableHead) => {
                self.in_head = false;
                if let Some(head) = self.heads.first().filter(|head| !head.is_empty()) {
                    let head = escaped(head);
                    self.line(&format!(".PP\n\\fI{head}\\fR:"));
                }
            }
            Event::Start(Tag::TableRow) => self.column = 0,
            Event::Start(Tag::TableCell) if self.in_head => self.heads.push(String::new()),
            Event::Start(Tag::TableCell) => match self.column {
                0 => self.line(".TP"),
                1 if self.heads.len() == 2 => {
                    if !self.text.ends_with('\n') {
                        self.text.push('\n');
                    }
                }
                column => {
                    let head = self.heads.get(column).cloned().unwrap_or_default();
                    if column > 1 && !self.text.ends_with(".TP\n") {
                        self.line(".br");
                    } else if !self.text.ends_with('\n') {
                        self.text.push('\n');
                    }
                    self.text.push_str(&format!("\\fI{}\\fR: ", escaped(&head)));
                }
            },
            Event::End(TagEnd::TableCell) if !self.in_head => {
                // A term must not be empty.
                if self.column == 0 && self.text.ends_with(".TP\n") {
                    self.text.push_str("\\&");
                }
                self.column += 1;
            }
            Event::End(TagEnd::TableRow) => self.text.push('\n'),
            event if self.in_head => {
                if let (Some(head), Some(text)) = (self.heads.last_mut(), text_of(&event)) {
                    head.push_str(text);
                }
            }
            event => self.text.push_str(&inline(&event).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> String {
        roff(parse(text))
    }

    #[test]
    fn what_troff_would_read_as_a_request_is_text() {
        assert_eq!(
            page("`--all` and\n.so \\fB it's"),
            "\\fB\\-\\-all\\fR and\n\\&.so \\efB it\\(aqs\n"
        );
    }

    #[test]
    fn a_row_is_a_term_and_what_is_said_of_it() {
        let two = "| flag | means |\n|---|---|\n| `--a` | one |\n| `--b` | two |\n";
        assert_eq!(
            page(two),
            ".PP\n\\fIflag\\fR:\n.TP\n\\fB\\-\\-a\\fR\none\n.TP\n\\fB\\-\\-b\\fR\ntwo\n"
        );
        let three = "| key | default | means |\n|---|---|---|\n| `a` | `1` | one |\n";
        assert_eq!(
            page(three),
            ".PP\n\\fIkey\\fR:\n.TP\n\\fBa\\fR\n\\fIdefault\\fR: \\fB1\\fR\n.br\n\\fImeans\\fR: one\n"
        );
    }

    #[test]
    fn lists_and_code_stand_apart() {
        let text = "- one\n- two\n\n```console\n$ x\n```\n";
        let expected = ".IP \\(bu 2\none\n.IP \\(bu 2\ntwo\n.PP\n.RS 4\n.nf\n$ x\n.fi\n.RE\n";
        assert_eq!(page(text), expected);
    }

    #[test]
    fn sections_end_at_the_next_of_their_level() {
        let text = "# a\n## `b` x\none\n### c\ntwo\n## d\nthree\n";
        let sections = sections(text);
        let headings: Vec<&str> = sections.iter().map(|section| section.heading.as_str()).collect();
        assert_eq!(headings, ["a", "b x", "c", "d"]);
        assert_eq!(sections[1].roff(), "one\n.SS c\ntwo\n");
        assert_eq!(sections[1].own().roff(), "one\n");
    }
}
