package codec

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/s2"
)

// Compression configures which values are compressed. A zero field selects its default.
type Compression struct {
	// Threshold is the shortest encoding, in bytes, that is compressed. 0: 4 KiB.
	Threshold int
	// MaxDecoded is the longest encoding, in bytes, that compressed bytes may expand to. A longer one is
	// rejected before it is allocated. 0: 16 MiB.
	MaxDecoded int
}

// Compressed returns a codec that compresses with S2 what inner encodes. An encoding that compression does
// not shorten stays uncompressed. Decoding a hostile value may cost MaxDecoded bytes of memory, whatever its
// own length. The error names the invalid field.
func Compressed[V any](inner Codec[V], c Compression) (Codec[V], error) {
	if inner == nil {
		return nil, fmt.Errorf("codec: Compressed: inner is nil: give the codec that encodes the values")
	}
	if c.Threshold == 0 {
		c.Threshold = 4 << 10
	}
	if c.MaxDecoded == 0 {
		c.MaxDecoded = 16 << 20
	}
	if c.Threshold < 1 {
		return nil, fmt.Errorf("codec: Compression.Threshold is %d: it must be 1 byte or more; 0 means 4 KiB", c.Threshold)
	}
	if c.MaxDecoded < c.Threshold || c.MaxDecoded > 1<<30 {
		return nil, fmt.Errorf("codec: Compression.MaxDecoded is %d: it must be from Threshold, %d, to 1 GiB", c.MaxDecoded, c.Threshold)
	}
	return &compressed[V]{inner: inner, cfg: c}, nil
}

type compressed[V any] struct {
	inner Codec[V]
	cfg   Compression
	bufs  sync.Pool // of *[]byte: scratch for packing and unpacking
}

func (c *compressed[V]) buffer() *[]byte {
	if b, ok := c.bufs.Get().(*[]byte); ok {
		return b
	}
	return new([]byte)
}

// put returns b, which the caller no longer uses, to the pool unless it has grown large.
func (c *compressed[V]) put(b *[]byte, full []byte) {
	if cap(full) <= maxBuffer {
		*b = full[:cap(full)]
		c.bufs.Put(b)
	}
}

// maxBuffer is the largest buffer, in bytes, that put keeps.
const maxBuffer = 1 << 20

// The first byte says what follows.
const (
	plainValue = 0
	s2Value    = 1
)

func (c *compressed[V]) Name() string { return "s2(" + c.inner.Name() + ")" }

func (c *compressed[V]) Append(dst []byte, v V) ([]byte, error) {
	start := len(dst)
	out, err := c.inner.Append(append(dst, plainValue), v)
	if err != nil {
		return dst, err
	}
	plain := out[start+1:]
	if len(plain) < c.cfg.Threshold {
		return out, nil
	}
	if len(plain) > c.cfg.MaxDecoded {
		return dst, fmt.Errorf("codec: %d bytes encoded, Compression.MaxDecoded is %d", len(plain), c.cfg.MaxDecoded)
	}
	buf := c.buffer()
	packed := s2.Encode(*buf, plain)
	defer c.put(buf, packed)
	if len(packed) >= len(plain) {
		return out, nil
	}
	out[start] = s2Value
	return append(out[:start+1], packed...), nil
}

func (c *compressed[V]) Decode(src []byte) (v V, err error) {
	if len(src) == 0 {
		return v, badValue("empty")
	}
	switch src[0] {
	case plainValue:
		return c.inner.Decode(src[1:])
	case s2Value:
	default:
		return v, badValue("compression %d is unknown", src[0])
	}
	n, err := s2.DecodedLen(src[1:])
	if err != nil {
		return v, fmt.Errorf("%w: s2: %w", ErrValue, err)
	}
	if n > c.cfg.MaxDecoded {
		return v, badValue("%d bytes when decompressed, the limit is %d", n, c.cfg.MaxDecoded)
	}
	buf := c.buffer()
	plain, err := s2.Decode(*buf, src[1:])
	if err != nil {
		return v, fmt.Errorf("%w: s2: %w", ErrValue, err)
	}
	v, err = c.inner.Decode(plain)
	c.put(buf, plain)
	return v, err
}
