package store

// SetHashMask makes a new store use only the bits of a hash that are in mask, so that keys collide.
func SetHashMask(s Owned, mask uint64) { s.(*s3fifo).mask = mask }

// InMain reports whether key is in the main queue.
func InMain(s Owned, key string) bool {
	f := s.(*s3fifo)
	f.mu.Lock()
	defer f.mu.Unlock()
	hash := f.hash(key)
	return f.shard(hash).find(hash, key).main
}
