package store

// SetHashMask makes a new store use only the bits of a hash that are in mask, so that keys collide.
func SetHashMask(s Owned, mask uint64) { s.(*s3fifo).mask = mask }
