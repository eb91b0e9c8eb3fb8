//! Pages that are a document.

use std::path::PathBuf;

use crate::markdown::{self, Section};
use crate::{Files, title};

struct Page {
    name: &'static str,
    about: &'static str,
    document: &'static str,
    see: &'static str,
}

const PAGES: [Page; 3] = [
    Page {
        name: "jackfield.service",
        about: "jackfield as a system's units",
        document: include_str!("../../../docs/install.md"),
        see: "\\fBjackfield\\fR(1),\n\\fBjackfield.toml\\fR(5),\n\\fBsystemd.exec\\fR(5)\n",
    },
    Page {
        name: "jackfield.hooks",
        about: "programs that are run after an interface became ready, was changed and is gone",
        document: include_str!("../../../docs/hooks.md"),
        see: "\\fBjackfield\\fR(1),\n\\fBjackfield.toml\\fR(5),\n\\fBjackfield.service\\fR(8)\n",
    },
    Page {
        name: "tc-redirect-tap",
        about: "CNI plugin that puts a tap device in an interface's place",
        document: include_str!("../../../docs/tc-redirect-tap.md"),
        see: "\\fBjackfield\\-vm\\fR(1)\n",
    },
];

/// Names by which a page is found too.
const OTHERS: [(&str, &str); 2] = [
    ("jackfield-scan.service", "jackfield.service"),
    ("jackfield-plug@.service", "jackfield.service"),
];

pub(crate) fn pages() -> Files {
    let path = |name: &str| PathBuf::from(format!("man/man8/{name}.8"));
    let mut files: Files = PAGES.iter().map(|it| (path(it.name), page(it).into_bytes())).collect();
    files.extend(OTHERS.map(|(name, of)| (path(name), format!(".so man8/{of}.8\n").into_bytes())));
    files
}

fn page(page: &Page) -> String {
    let sections = markdown::sections(page.document);
    let mut text = title(page.name, 8);
    let (name, about) = (markdown::escaped(page.name), markdown::escaped(page.about));
    text.push_str(&format!(".SH NAME\n{name} \\- {about}\n.SH DESCRIPTION\n"));
    let below = |level: usize| move |section: &&Section<'_>| section.level == level;
    for section in sections.iter().filter(below(1)) {
        text.push_str(&section.own().roff());
    }
    for section in sections.iter().filter(below(2)) {
        text.push_str(&section.headed());
    }
    text.push_str(&format!(".SH SEE ALSO\n{}", page.see));
    text
}
