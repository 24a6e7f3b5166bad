package tier

import (
	"errors"
	"fmt"
	"slices"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/fence"
)

// Tag adds the value to the sets that the tags name: InvalidateTag with one of them covers the value. Callers that
// come after such an InvalidateTag do not wait for the load that runs. So call Tag as soon as a tag is known, ideally
// before reading the origin. The tags apply to ErrNotFound as well. With KeepPrevious the previous value's tags stay,
// and these are added. A value has at most codec.MaxTags tags of at most codec.MaxTag bytes each. If a tag is empty
// or too long, or there are more tags, the fill fails with ErrBadTag: a value that misses a tag could outlive the
// tag's invalidation.
func (f *Fill[V]) Tag(tags ...string) {
	for _, tag := range tags {
		if err := checkTag(tag); err != nil {
			f.tagErr = errors.Join(f.tagErr, err)
			continue
		}
		f.addTag(fence.TagHash(tag))
	}
}

func (f *run) addTag(hash uint32) {
	switch {
	case slices.Contains(f.tags, hash):
	case len(f.tags) >= codec.MaxTags:
		f.tagErr = fmt.Errorf("%w: more than %d: give the value fewer, wider ones", ErrBadTag, codec.MaxTags)
	default:
		f.tags = append(f.tags, hash)
		if f.flight != nil {
			f.core.flights.declare(f.flight, hash, f.core.fences)
		}
	}
}

// tagged returns the tags of what the load returned, or the error that says why it has none.
func (f *run) tagged(wide uint64) (*fence.TagSet, error) {
	if f.keep {
		for _, hash := range f.prev.Tags.List() {
			f.addTag(hash)
		}
	}
	return fence.TagsAt(f.tags, wide), f.tagErr
}

func checkTag(tag string) error {
	switch {
	case tag == "":
		return fmt.Errorf("%w: it is empty", ErrBadTag)
	case len(tag) > codec.MaxTag:
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrBadTag, len(tag), codec.MaxTag)
	}
	return nil
}
