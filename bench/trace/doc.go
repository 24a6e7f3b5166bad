// Package trace reads recorded requests, so that a load asks for what a real service was
// asked for.
//
// Six formats, each plain or compressed with gzip or Zstandard, which is told by the first
// bytes of the file, not by its name:
//
//	oraclegeneral  libCacheSim's: 24 bytes a request, little-endian: u32 seconds, u64 key, u32 bytes, i64 next access or -1
//	twitter        Twitter's CSV: timestamp, key, key size, value size, client, operation, TTL
//	arc            ARC's blocks: first block, number of blocks, ignored, request number
//	lirs           LIRS: a block number a line; lines of "*" mark ends of loops and are passed over
//	cache2k        cache2k's: a big-endian u32 a request
//	keys           a key a line
//
// A file that is damaged or of another format is an *Error that names the file and the
// offset, in bytes after decompression, of the request that could not be read. What came
// before it has been read and stays valid.
package trace
