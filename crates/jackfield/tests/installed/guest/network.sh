# Everything of the network that a plug could touch, but times.
for family in -4 -6; do
    ip -N $family rule show
    ip -N -d $family route show table all | sed 's/ expires [0-9]*sec//'
done
ip -o -N -d address show | sed 's/ valid_lft .*//'
ip -o -N -d link show
nft list ruleset
sysctl --all --pattern '^net' 2>/dev/null | grep -v '^net.netfilter.nf_conntrack_'
