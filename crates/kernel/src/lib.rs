//! The one place of jackfield that talks to Linux.
