package owner

import (
	"context"
	"errors"
	"fmt"

	"github.com/weircache/weir/codec"
)

// The errors of the public package that have no fields: it gives them their names and documents them.
var (
	ErrNotFound      = errors.New("weir: not found")
	ErrOverloaded    = errors.New("weir: overloaded")
	ErrNotCached     = errors.New("weir: not cached")
	ErrIsolated      = errors.New("weir: isolated")
	ErrClosed        = errors.New("weir: cache is closed")
	ErrBadTag        = errors.New("weir: bad tag")
	ErrEmptyKey      = errors.New("weir: the key is empty")
	ErrKeyTooLarge   = errors.New("weir: the key is too large")
	ErrValueTooLarge = errors.New("weir: the value is too large")
	ErrCycle         = errors.New("weir: the fill waits for itself")
	ErrGoexit        = errors.New("weir: the loader called runtime.Goexit")
	ErrTTLTooLong    = errors.New("weir: the TTL is beyond the contract")
	ErrTimeout       = fmt.Errorf("weir: the load timed out: %w", context.DeadlineExceeded)
	ErrExpired       = errors.New("weir: the copy passed its hard expiry before it could be handed out")
	ErrUnset         = errors.New("weir: the batch loader has neither set nor failed the fill")
	ErrNotWarmed     = errors.New("weir: not warmed: the key's owner had no permits to spare, or could not be reached, for too long")
	ErrDrilling      = errors.New("weir: a drill is already running")
	ErrBadToken      = errors.New("weir: bad token")
	ErrFeedGap       = errors.New("weir: the feed does not go back that far")
	ErrNoVersion     = errors.New("weir: a Put needs the origin's version of the value: without one, use Invalidate")
)

// CheckTag returns what is wrong with a tag.
func CheckTag(tag string) error {
	switch {
	case tag == "":
		return fmt.Errorf("%w: it is empty", ErrBadTag)
	case len(tag) > codec.MaxTag:
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrBadTag, len(tag), codec.MaxTag)
	}
	return nil
}

// CheckKey returns what is wrong with a key.
func CheckKey(key string) error {
	switch {
	case key == "":
		return ErrEmptyKey
	case len(key) > codec.MaxKey:
		return fmt.Errorf("%w: %d bytes, the limit is %d: hash longer keys first", ErrKeyTooLarge, len(key), codec.MaxKey)
	}
	return nil
}

// CheckKeys returns what is wrong with the first bad one of keys.
func CheckKeys(keys []string) error {
	for i, key := range keys {
		if err := CheckKey(key); err != nil {
			return fmt.Errorf("key %d of %d: %w", i+1, len(keys), err)
		}
	}
	return nil
}

// CheckTags returns what is wrong with the first bad one of tags.
func CheckTags(tags []string) error {
	for i, tag := range tags {
		if err := CheckTag(tag); err != nil {
			return fmt.Errorf("tag %d of %d: %w", i+1, len(tags), err)
		}
	}
	return nil
}
