package bench

import "runtime"

// HeapBytes returns the size of live objects after two collections: the first one empties pools.
func HeapBytes() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
