// Package trace reads recorded requests, so that a load can replay the requests of a real service.
//
// There are six formats, each plain or compressed with gzip or Zstandard. The first bytes of the file identify the
// compression, not its name:
//
//	oraclegeneral  libCacheSim's: 24 bytes a request, little-endian: u32 seconds, u64 key, u32 bytes, i64 next access or -1
//	twitter        Twitter's CSV: timestamp, key, key size, value size, client, operation, TTL
//	arc            ARC's blocks: first block, number of blocks, ignored, request number
//	lirs           LIRS: a block number a line; lines of "*" mark ends of loops and are passed over
//	cache2k        cache2k's: a big-endian u32 a request
//	keys           a key a line
//
// A file that is damaged or in another format gives an *Error with the file and the offset, in bytes after
// decompression, of the unreadable request. The requests before it have been read and stay valid.
package trace
