package tier

import "github.com/weircache/weir/codec"

// What follows is for tests alone: of what a missing part of the fences would break.

// forget makes the fence of a key forgotten, without the floor that stands for it.
func (f *fences) forget(key string, hash uint64) {
	s := f.shard(fenceSlot(hash))
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, key)
}

// hide makes near copies of the hash's slot pass without a look at their fences.
func (f *fences) hide(hash uint64) { f.slots[fenceSlot(hash)].Store(0) }

// newestMark returns the newest logged mark of a key, the zero one if there is none.
func (f *fences) newestMark(key string, hash uint64) codec.Mark {
	s := f.shard(fenceSlot(hash))
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[key].marks[0].mark
}
