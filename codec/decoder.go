package codec

import (
	"encoding/binary"
	"math"
	"time"
)

func cut(b []byte, n int) []byte { return b[:min(len(b), n)] }

func appendBytes(dst, b []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

func appendMark(dst []byte, m Mark) []byte {
	dst = binary.AppendUvarint(dst, m.Seq)
	if m.Seq != 0 {
		dst = binary.BigEndian.AppendUint64(dst, m.Incarnation)
	}
	return dst
}

// appendDuration appends d in microseconds, rounded up so that a positive duration never becomes zero. A
// negative one becomes zero. A duration that does not fit after the rounding is cut to the longest that does.
func appendDuration(dst []byte, d time.Duration) []byte {
	ns := uint64(max(d, 0))
	return binary.AppendUvarint(dst, min((ns+999)/1000, maxMicros))
}

// floorMicros returns d in microseconds. It rounds negative durations down as well, so that a point in the
// past stays in the past.
func floorMicros(d time.Duration) int64 {
	us := d.Microseconds()
	if d%time.Microsecond < 0 && us > -maxMicros {
		us--
	}
	return us
}

const maxMicros = math.MaxInt64 / 1000

// decoder reads a body from the front. The first error sticks, and everything read after it is zero.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = malformed(format, args...)
	}
	d.b = nil
}

// newer is fail for input that is well formed but unknown to this version.
func (d *decoder) newer(format string, args ...any) {
	if d.err == nil {
		d.err = unsupported(format, args...)
	}
	d.b = nil
}

func (d *decoder) byte() byte {
	if len(d.b) < 1 {
		d.fail("cut short")
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) uint64() uint64 {
	if len(d.b) < 8 {
		d.fail("cut short")
		return 0
	}
	v := binary.BigEndian.Uint64(d.b)
	d.b = d.b[8:]
	return v
}

func (d *decoder) uint32() uint32 {
	if len(d.b) < 4 {
		d.fail("cut short")
		return 0
	}
	v := binary.BigEndian.Uint32(d.b)
	d.b = d.b[4:]
	return v
}

// rest takes all remaining bytes.
func (d *decoder) rest() (b []byte) {
	if d.err == nil {
		b, d.b = d.b[:len(d.b):len(d.b)], nil
	}
	return b
}

func appendTags(dst []byte, tags []uint32) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(tags)))
	for _, tag := range tags {
		dst = binary.BigEndian.AppendUint32(dst, tag)
	}
	return dst
}

// chain appends a chain to dst.
func (d *decoder) chain(dst []uint64) []uint64 {
	for range d.count("chain", MaxChain, 8) {
		dst = append(dst, d.uint64())
	}
	return dst
}

// tags appends tags to dst.
func (d *decoder) tags(dst []uint32) []uint32 {
	for range d.count("tags", MaxTags, 4) {
		dst = append(dst, d.uint32())
	}
	return dst
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("bad number")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) duration() time.Duration {
	us := d.uvarint()
	if us > maxMicros {
		d.fail("duration out of range")
		return 0
	}
	return time.Duration(us) * time.Microsecond
}

func (d *decoder) signedDuration() time.Duration {
	us, n := binary.Varint(d.b)
	if n <= 0 || us > maxMicros || us < -maxMicros {
		d.fail("bad duration")
		return 0
	}
	d.b = d.b[n:]
	return time.Duration(us) * time.Microsecond
}

func (d *decoder) mark() Mark {
	m := Mark{Seq: d.uvarint()}
	if m.Seq != 0 {
		m.Incarnation = d.uint64()
	}
	return m
}

func (d *decoder) bytes(what string, limit int) []byte {
	n := d.uvarint()
	if n > uint64(limit) {
		d.fail("%s of %d bytes, the limit is %d", what, n, limit)
		return nil
	}
	if n > uint64(len(d.b)) {
		d.fail("%s of %d bytes where %d are left", what, n, len(d.b))
		return nil
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b
}

// count reads a number of elements, each of at least size bytes, that follow.
func (d *decoder) count(what string, limit, size int) int {
	n := d.uvarint()
	if n > uint64(limit) {
		d.fail("%d %s, the limit is %d", n, what, limit)
		return 0
	}
	if n > uint64(len(d.b)/size) {
		d.fail("%d %s where %d bytes are left", n, what, len(d.b))
		return 0
	}
	return int(n)
}

func (d *decoder) end() error {
	if d.err == nil && len(d.b) != 0 {
		d.fail("%d bytes too many", len(d.b))
	}
	return d.err
}
