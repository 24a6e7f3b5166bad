package tier

import (
	"errors"

	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/owner"
)

// Tag adds the value to the sets that the tags name: InvalidateTag with one of them covers the value. Callers that
// come after such an InvalidateTag do not wait for the load that runs. So call Tag as soon as a tag is known, ideally
// before reading the origin. The tags apply to ErrNotFound as well. With KeepPrevious the previous value's tags stay,
// and these are added. A value has at most codec.MaxTags tags of at most codec.MaxTag bytes each. If a tag is empty
// or too long, or there are more tags, the fill fails with ErrBadTag: a value that misses a tag could outlive the
// tag's invalidation.
func (f *Fill[V]) Tag(tags ...string) {
	for _, tag := range tags {
		if err := owner.CheckTag(tag); err != nil {
			f.run.TagErr = errors.Join(f.run.TagErr, err)
			continue
		}
		f.run.AddTag(fence.TagHash(tag))
	}
}
