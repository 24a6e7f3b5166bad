// Package store is the owned tier: entries of encoded values within a number of bytes.
//
// An Entry is immutable once it is stored; a change is a new entry. An Owned store keeps what was set: a filled value that
// the store drops a moment later costs a second load at the origin. So three things count: the hit ratio, whether a value
// that was just set is there at once and some fills later, and memory. Measured
// with 4M requests of Zipf 0.99 over 1M keys, the first half as warm-up, and with two traces from
// cold (web07: 76,118 requests, 20,484 keys; cloudphysics: 113,872 and 48,974), capacity
// 1 % and 10 % of the keys, all entries of one size:
//
//	                        hit ratio, %                            gone, % of new keys,
//	                        web07       cloudphysics  Zipf          n fills later         bytes  get  set
//	                        1 %   10 %  1 %    10 %   1 %    10 %   n=0   10   100  500   a key  ns   ns
//	this store              43.2  58.4  17.1   25.2   64.7   80.7     0    0     0    0    99    126  225
//	otter v2.4.0            46.3  56.8  16.9   25.2   64.2   79.4     0    6    44   68    98    123  325
//	  same, not async       42.7  55.2  16.4   24.6   63.9   80.4     0   30    35   49    97    240  469
//	  same + FIFO of 5 %    43.1  57.3  17.0   25.5   63.2   80.5     0    0     0   16   103    318  614
//	theine v0.6.3           44.9  57.0  17.2   26.5   64.8   80.7     0  0.6     4   12   142    365  422
//	ristretto v2.4.2        11.5  34.2   7.5   13.1   58.9   75.0   100  100   100  100   392    172  355
//	  same + overlay of 5 % 33.9  48.2  12.9   23.1   58.3   74.5     0    0     0   99   300    168  440
//	golang-lru v2.0.7 LRU   39.2  55.7  16.2   19.5   56.6   76.6     0    0     0    0   115    135  224
//	  same, 2Q              42.1  57.8  17.2   23.5   63.1   79.7     0    0     0    0   115    196  453
//	  same, ARC             42.0  58.1  17.3   24.8   64.4   80.5     0    0    64   86   115    202  408
//	SIEVE (a sketch)        41.5  58.0  17.1   20.9   64.4   80.1     0    1    24   63    99    129  250
//
// Gone: Zipf at 1 %, a million fills in a loop. Bytes: the heap of a store that is not yet
// full, without values, keys and entries. Nanoseconds: one goroutine, 100,000 keys, the lowest of
// several runs on a shared machine. ristretto had 30 counters an entry, and drops sets in
// such a loop. otter and theine work behind the loop: at 1 % of web07, which is 204 keys,
// otter holds more than it should.
//
// Sizes matter as well: of 1000 values of 200 KiB set in an otter of 8 MiB that was full of 500-byte values,
// 999 were gone as soon as its maintenance had run.
//
// W-TinyLFU (otter, theine) has the hit ratio, but a new key competes with old ones before
// anyone could ask for it again, the sooner the larger it is. ristretto rejects it outright.
// LRU keeps it, and loses four to eight points under Zipf. golang-lru's 2Q comes closest, but
// counts entries instead of bytes, and its gets take turns. A TinyLFU with a queue of new keys beside it
// would do what S3-FIFO does with less. So the store is an S3-FIFO (Yang et al., SOSP 2023) of
// our own: no dependency, no goroutine, and no work is left when Set has returned.
//
//   - A new key enters the small queue, a tenth of the bytes. A key that was read by the time
//     it reaches the end moves to the main queue. Otherwise it is evicted, and its hash is
//     remembered for as many evictions as there are entries; if the key comes back, it enters the
//     main queue.
//   - A key that reaches the end of the main queue and was read since goes round again, at
//     most three times on credit.
//
// So a value that was set stays until a tenth of the bytes has been set after it. A hit moves
// nothing: it increments a counter up to three, and later hits do not even do that.
package store
