#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| ctwhy_fuzz::rules(data));
