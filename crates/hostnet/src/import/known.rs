//! The files that the tools install, and by what each is known that was not changed since: a
//! fingerprint of what it says. Taken from every release of amazonlinux/amazon-ec2-net-utils (1.3 to
//! 1.7.3 and 2.0.0 to 2.7.4, as its Makefile installs them), and from every commit of ubuntu-ec2net
//! (jessecollier, bkr, brentonr).

use super::Tool;

/// A file that a tool installs.
pub(super) struct Installed {
    pub(super) tool: Tool,
    pub(super) path: &'static str,
    /// Nothing but the tool has a file of this name.
    pub(super) tells: bool,
    pub(super) fingerprints: &'static [u64],
}

/// 64 bits of FNV-1a: enough to tell a file that somebody changed. Nobody is kept from making one that
/// looks alike who may write it.
pub(super) fn fingerprint(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
        (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// In the order in which they are removed: what makes the tool act first, what tells that it is here last.
pub(super) const INSTALLED: &[Installed] = &[
    Installed {
        tool: Tool::UbuntuEc2net,
        path: "/etc/udev/rules.d/53-ec2-network-interfaces.rules",
        tells: true,
        fingerprints: EC2_NETWORK_INTERFACES_RULES,
    },
    Installed {
        tool: Tool::UbuntuEc2net,
        path: "/etc/udev/rules.d/75-persistent-net-generator.rules",
        tells: true,
        fingerprints: PERSISTENT_NET_GENERATOR_RULES,
    },
    Installed {
        tool: Tool::UbuntuEc2net,
        path: "/etc/dhcp/dhclient-exit-hooks.d/ec2dhcp",
        tells: true,
        fingerprints: EC2DHCP,
    },
    Installed {
        tool: Tool::UbuntuEc2net,
        path: "/etc/init/docker-finish.conf",
        tells: true,
        fingerprints: DOCKER_FINISH_CONF,
    },
    Installed {
        tool: Tool::UbuntuEc2net,
        path: "/etc/init/elastic-network-interfaces.conf",
        tells: true,
        fingerprints: ELASTIC_NETWORK_INTERFACES_CONF,
    },
    Installed {
        tool: Tool::UbuntuEc2net,
        path: "/sbin/ec2ifscan",
        tells: false,
        fingerprints: EC2IFSCAN,
    },
    Installed {
        tool: Tool::UbuntuEc2net,
        path: "/sbin/ec2ifup",
        tells: false,
        fingerprints: EC2IFUP,
    },
    Installed {
        tool: Tool::UbuntuEc2net,
        path: "/sbin/ec2ifdown",
        tells: false,
        fingerprints: EC2IFDOWN,
    },
    Installed {
        tool: Tool::UbuntuEc2net,
        path: "/etc/network/ec2net.hotplug",
        tells: true,
        fingerprints: EC2NET_HOTPLUG,
    },
    Installed {
        tool: Tool::UbuntuEc2net,
        path: "/etc/network/ec2net-functions",
        tells: true,
        fingerprints: EC2NET_FUNCTIONS,
    },
    Installed {
        tool: Tool::Ec2NetUtils1,
        path: "/usr/lib/udev/rules.d/53-ec2-network-interfaces.rules",
        tells: true,
        fingerprints: EC2_NETWORK_INTERFACES_RULES,
    },
    Installed {
        tool: Tool::Ec2NetUtils1,
        path: "/usr/lib/udev/rules.d/75-persistent-net-generator.rules",
        tells: true,
        fingerprints: PERSISTENT_NET_GENERATOR_RULES,
    },
    Installed {
        tool: Tool::Ec2NetUtils1,
        path: "/etc/dhcp/dhclient.d/ec2dhcp.sh",
        tells: true,
        fingerprints: EC2DHCP_SH,
    },
    Installed {
        tool: Tool::Ec2NetUtils1,
        path: "/etc/dhcp/dhclient-enter-hooks.d/50_ec2_rewrite_primary_enter_hook.sh",
        tells: true,
        fingerprints: EC2_REWRITE_PRIMARY_ENTER_HOOK_SH,
    },
    Installed {
        tool: Tool::Ec2NetUtils1,
        path: "/usr/lib/systemd/system/ec2net-scan.service",
        tells: true,
        fingerprints: EC2NET_SCAN_SERVICE,
    },
    Installed {
        tool: Tool::Ec2NetUtils1,
        path: "/usr/lib/systemd/system/ec2net-ifup@.service",
        tells: true,
        fingerprints: EC2NET_IFUP_SERVICE,
    },
    Installed {
        tool: Tool::Ec2NetUtils1,
        path: "/usr/sbin/ec2ifscan",
        tells: false,
        fingerprints: EC2IFSCAN,
    },
    Installed {
        tool: Tool::Ec2NetUtils1,
        path: "/usr/sbin/ec2ifup",
        tells: false,
        fingerprints: EC2IFUP,
    },
    Installed {
        tool: Tool::Ec2NetUtils1,
        path: "/usr/sbin/ec2ifdown",
        tells: false,
        fingerprints: EC2IFDOWN,
    },
    Installed {
        tool: Tool::Ec2NetUtils1,
        path: "/usr/lib/udev/write_net_rules",
        tells: false,
        fingerprints: WRITE_NET_RULES,
    },
    Installed {
        tool: Tool::Ec2NetUtils1,
        path: "/usr/lib/udev/rule_generator.functions",
        tells: false,
        fingerprints: RULE_GENERATOR_FUNCTIONS,
    },
    Installed {
        tool: Tool::Ec2NetUtils1,
        path: "/etc/sysconfig/network-scripts/ec2net.hotplug",
        tells: true,
        fingerprints: EC2NET_HOTPLUG,
    },
    Installed {
        tool: Tool::Ec2NetUtils1,
        path: "/etc/sysconfig/network-scripts/ec2net-functions-lib",
        tells: true,
        fingerprints: EC2NET_FUNCTIONS_LIB,
    },
    Installed {
        tool: Tool::Ec2NetUtils1,
        path: "/etc/sysconfig/network-scripts/ec2net-functions",
        tells: true,
        fingerprints: EC2NET_FUNCTIONS,
    },
    Installed {
        tool: Tool::Ec2NetUtils2,
        path: "/usr/lib/udev/rules.d/99-vpc-policy-routes.rules",
        tells: true,
        fingerprints: VPC_POLICY_ROUTES_RULES,
    },
    Installed {
        tool: Tool::Ec2NetUtils2,
        path: "/usr/lib/systemd/system/refresh-policy-routes@.timer",
        tells: true,
        fingerprints: REFRESH_POLICY_ROUTES_TIMER,
    },
    Installed {
        tool: Tool::Ec2NetUtils2,
        path: "/usr/lib/systemd/system/refresh-policy-routes@.service",
        tells: true,
        fingerprints: REFRESH_POLICY_ROUTES_SERVICE,
    },
    Installed {
        tool: Tool::Ec2NetUtils2,
        path: "/usr/lib/systemd/system/policy-routes@.service",
        tells: true,
        fingerprints: POLICY_ROUTES_SERVICE,
    },
    Installed {
        tool: Tool::Ec2NetUtils2,
        path: "/usr/bin/setup-policy-routes",
        tells: true,
        fingerprints: SETUP_POLICY_ROUTES,
    },
    Installed {
        tool: Tool::Ec2NetUtils2,
        path: "/usr/local/bin/setup-policy-routes",
        tells: true,
        fingerprints: SETUP_POLICY_ROUTES,
    },
    Installed {
        tool: Tool::Ec2NetUtils2,
        path: "/usr/share/amazon-ec2-net-utils/lib.sh",
        tells: true,
        fingerprints: LIB_SH,
    },
    Installed {
        tool: Tool::Ec2NetUtils2,
        path: "/usr/local/share/amazon-ec2-net-utils/lib.sh",
        tells: true,
        fingerprints: LIB_SH,
    },
];

const EC2_REWRITE_PRIMARY_ENTER_HOOK_SH: &[u64] = &[0x0607_cdc8_ddb2_40f7, 0x2d9a_8cdd_77a0_e6df];
const EC2_NETWORK_INTERFACES_RULES: &[u64] = &[
    0x0a3f_3f22_c086_4884,
    0x175e_de19_1f06_639c,
    0x3d39_dc5c_f3e0_8231,
    0x419d_0b68_d6ae_797c,
    0x4f08_a6d4_83db_60e6,
    0xaf20_faa7_fc1d_126e,
    0xe08a_e70b_06ba_0aff,
    0xf4b0_3869_1c61_f18a,
];
const PERSISTENT_NET_GENERATOR_RULES: &[u64] = &[
    0x1d6b_21c8_39b2_8e1e,
    0x3c3d_a3ec_e3ef_26ed,
    0x4f7c_7b7d_eb8e_e3cd,
    0x994f_ed58_32e1_dbbf,
    0xd656_84ba_ba30_2a00,
];
const VPC_POLICY_ROUTES_RULES: &[u64] = &[0x6696_1f69_1742_af51, 0x6a70_f938_8331_328d];
const DOCKER_FINISH_CONF: &[u64] = &[0x5037_5e8c_8c96_a7ef];
const EC2DHCP: &[u64] = &[0xae30_bbc2_b16c_3cce];
const EC2DHCP_SH: &[u64] =
    &[0x1639_520e_7e78_1543, 0x8a65_837c_5cb6_b1a9, 0xe327_90e7_fac0_1334, 0xfe03_0ed6_6ca1_5203];
const EC2IFDOWN: &[u64] = &[0xa345_dbba_670e_0785, 0xba8d_0d07_b33f_835e, 0xfb1e_b827_4d7d_e25b];
const EC2IFSCAN: &[u64] =
    &[0x291a_7bd7_7153_29c2, 0x8fc6_4a48_0b70_00dc, 0x9fa2_7595_c83d_a9ee, 0xdac0_325c_cdbb_cba2];
const EC2IFUP: &[u64] = &[0x2bc2_84ea_b790_2350, 0x62ea_b21d_161b_eb11, 0xe108_1936_3df6_6a87];
const EC2NET_FUNCTIONS: &[u64] = &[
    0x2603_1637_f098_de52,
    0x3364_5ec1_1578_0408,
    0x3d00_9fc8_629e_d0a4,
    0x3ff4_486b_12cd_712d,
    0x40f5_c35b_2107_0eea,
    0x4ac4_8562_0870_7d6c,
    0x4d47_5ed7_7a05_bd37,
    0x4e3d_152d_6201_0e26,
    0x6845_0ff6_f769_8580,
    0x746b_b5b9_b743_7a3b,
    0x779d_fe29_9329_18a5,
    0x99ae_5035_3496_401e,
    0x9d52_5bb4_f57c_c51f,
    0xb5fb_f881_485f_f1a6,
    0xe11a_5ac8_7f0d_6a12,
    0xfc0a_4761_97bf_a721,
    0xffbf_d2fc_9349_3591,
    0xffd8_b3f4_3818_0d7d,
];
const EC2NET_FUNCTIONS_LIB: &[u64] = &[0x6314_5cbc_129a_313a, 0xcd9c_2db7_f20e_0cb6];
const EC2NET_IFUP_SERVICE: &[u64] = &[0x44f5_b4f2_3c37_cd36, 0xb9f7_e01a_f48f_bf42];
const EC2NET_SCAN_SERVICE: &[u64] = &[0x2c78_2995_c278_20ee, 0xea44_5334_d4d3_622a];
const EC2NET_HOTPLUG: &[u64] =
    &[0x1cee_5de8_c85f_a5d5, 0x241c_2ca3_9ede_e3c6, 0x71f7_be86_f6b5_11b4, 0xc3f6_8f1d_cb1b_175b];
const ELASTIC_NETWORK_INTERFACES_CONF: &[u64] =
    &[0x2028_560b_a53b_9973, 0x6a40_82ee_edae_62f3, 0x7612_b9ba_7605_6284];
const LIB_SH: &[u64] = &[
    0x0866_5c4a_7d21_7428,
    0x434d_2891_48a2_28b7,
    0x43c9_3ac1_b43e_71a2,
    0x4607_3b20_9fc0_5411,
    0x5113_e234_d1d1_ad8a,
    0x74c9_b095_78b6_c599,
    0x770f_0336_61bb_fbd2,
    0x8f90_e297_b618_dbd3,
    0xaaad_e778_717e_1ea7,
    0xb94e_633d_84b4_0df4,
    0xbfe9_59c3_0895_da9d,
    0xe189_11c0_90e8_657e,
    0xe898_7b33_0e31_b7b5,
];
const POLICY_ROUTES_SERVICE: &[u64] =
    &[0x2517_db2b_f16c_c1a4, 0x5672_8f8a_dabb_6ee3, 0xc369_f8af_9f9f_3580, 0xebbe_7bfc_4880_c8b7];
const REFRESH_POLICY_ROUTES_SERVICE: &[u64] =
    &[0x1366_0c04_0308_4717, 0x24ec_d32d_1810_6afe, 0x3093_8ac4_5a70_de48, 0x9abc_e81e_f5a5_37f8];
const REFRESH_POLICY_ROUTES_TIMER: &[u64] = &[0x15b4_9231_3575_2667, 0x6d5f_1a65_b149_e14d];
const RULE_GENERATOR_FUNCTIONS: &[u64] = &[0x4ebf_0612_2da9_4d9c];
const SETUP_POLICY_ROUTES: &[u64] = &[
    0x0026_d24d_5b7a_58a7,
    0x0451_9ea2_7dda_1071,
    0x11d5_5b11_dac3_8449,
    0x163b_a755_c0d5_c960,
    0x19d8_5392_cf1a_a939,
    0x1bb9_a47d_1eb7_4241,
    0x3152_c1a8_c40c_8942,
    0x3d1b_a2a2_a365_b486,
    0x502e_9e32_c091_71b1,
    0x614e_1f87_7618_a56d,
    0x6dbf_e7a0_fbdc_da11,
    0x80e7_85b3_4e54_ae7d,
    0x861a_b4be_28d7_4647,
    0xbbc8_0421_44ff_48b0,
    0xc4d8_8e99_a9c0_732d,
    0xc5fe_224a_d92c_c290,
    0xca68_eb53_f4ff_5f75,
    0xd9a3_8e30_7537_6ebc,
    0xe01f_2c5f_4430_d745,
];
const WRITE_NET_RULES: &[u64] = &[0x0b54_35f0_44f0_2d16];
