//! The `jackfield` command: parse, call, print.

#![forbid(unsafe_code)]

mod arguments;
mod commands;
mod failure;
mod logging;
mod table;

use std::process::ExitCode;

use arguments::{Arguments, Command};
use failure::Failure;

/// Exit status where `plan` or `vm check` finds a difference.
const DIFFERENCE: u8 = 3;

fn main() -> ExitCode {
    let arguments = match arguments::parse() {
        Ok(arguments) => arguments,
        Err(status) => return status,
    };
    logging::start(&arguments);
    match run(&arguments) {
        Ok(status) => status,
        Err(failure) => {
            anstream::eprintln!("jackfield: {}", failure::Advised(&failure));
            ExitCode::from(failure.status())
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let done = |()| ExitCode::SUCCESS;
    match &arguments.command {
        Command::Run => commands::run::run(arguments).map(done),
        Command::Reload => commands::reload::reload().map(done),
        Command::Plug(plug) => commands::plug::plug(arguments, plug).map(done),
        Command::Unplug(unplug) => commands::plug::unplug(arguments, unplug).map(done),
        Command::Scan(scan) => commands::plug::scan(arguments, scan).map(done),
        Command::Plan(plan) => commands::plan::plan(arguments, plan).map(difference),
        Command::Status(status) => commands::status::status(arguments, status).map(done),
        Command::Doctor(doctor) => {
            commands::doctor::doctor(arguments, doctor.output).map(|healthy| match healthy {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            })
        }
        Command::Explain(explain) => commands::explain::explain(arguments, explain).map(done),
        Command::Render(render) => commands::render::render(arguments, render).map(done),
        Command::Import(import) => commands::import::import(arguments, import).map(done),
        Command::Vm(vm) => commands::vm::vm(&vm.command).map(difference),
        Command::Demo(demo) => commands::demo::demo(demo).map(done),
    }
}

/// The exit status where so many differences were found.
fn difference(differences: usize) -> ExitCode {
    match differences {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(DIFFERENCE),
    }
}
