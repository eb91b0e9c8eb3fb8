//! `jackfield vm conf`.

use std::io::Read;
use std::path::Path;

use jackfield_cni::types::CniResult;
use jackfield_guest::conf_of_result;
use jackfield_vmconf::VmConf;

use crate::arguments::vm::Conf;
use crate::commands::print;
use crate::failure::Failure;

pub(crate) fn conf(conf: &Conf) -> Result<(), Failure> {
    conf.form.check()?;
    let json = read(&conf.result)
        .map_err(|source| Failure::ReadResult { path: conf.result.clone(), source })?;
    let result = CniResult::parse(&json).map_err(jackfield_guest::Error::from)?;
    let guest = conf_of_result(&result, &conf.container_id, conf.vm_ifname.as_ref(), conf.mtu)?;
    print(&conf.form.text(&VmConf::from(guest))?)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    if path != Path::new("-") {
        return std::fs::read(path);
    }
    let mut json = Vec::new();
    std::io::stdin().read_to_end(&mut json)?;
    Ok(json)
}
