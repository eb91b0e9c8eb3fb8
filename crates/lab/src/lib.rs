//! Instances that hot-plug, made of network namespaces, with a metadata service emulator.
