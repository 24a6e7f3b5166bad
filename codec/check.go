package codec

import "encoding/binary"

// Limits on what CheckMsgpack accepts.
const (
	// MaxDepth is how deeply arrays and maps may nest. Decoding recurses, and a stack
	// that overflows ends the process; real values nest a few levels.
	MaxDepth = 64
	// MaxElements is how many elements one value may have, over all levels; a map's
	// entry counts as two.
	MaxElements = 1 << 20

	// A value may make its decoder allocate allocRatio bytes per byte of its own, but never more than
	// allocMost; allocFloor is always allowed. What an encoder writes stays under 200 for almost any type
	// (many small maps are the worst case). A crafted value can reach the size of a struct per byte. The
	// floor lets small honest values of large structs pass.
	allocRatio = 256
	allocMost  = 128 << 20
	allocFloor = 1 << 20
)

// The extension types that pass the check, as msgpack/v5 numbers them.
const (
	extTime     = -1   // time.Time, in 4, 8 or 12 bytes
	extInterned = -128 // a string that occurred before (struct tag "intern"), in 1 or 2 bytes
)

// CheckMsgpack returns an error unless b is exactly one MessagePack value within MaxDepth and MaxElements. It
// reads b once from front to back, and it allocates only when it fails. Every length in b must fit into the
// bytes that are present, because decoders allocate what a length says before they check that the bytes are
// there, and they recurse as deep as the input tells them to. CheckMsgpack rejects extension types other than
// time and interned strings: it cannot check their contents. Safe for concurrent use. It only reads b. The
// error wraps ErrValue.
//
// What a value costs to decode depends on the target type, which CheckMsgpack does not know. The codec that
// Msgpack returns checks that as well.
//
// The format: https://github.com/msgpack/msgpack/blob/master/spec.md
func CheckMsgpack(b []byte) error { return checkMsgpack(b, nil) }

// level is an array or a map that the check is inside of.
type level struct {
	left uint32 // elements that are still to come
	p    *plan  // plan of the type it is decoded into; nil: unknown
}

// checkMsgpack checks that b can be decoded into p. With a nil p it checks the form alone.
func checkMsgpack(b []byte, p *plan) error { return checkAndNote(b, p, nil) }

// checkAndNote is checkMsgpack. If exts is not nil, it appends the offset at which the contents of each time
// begin: see source.
func checkAndNote(b []byte, p *plan, exts *[]int) error {
	var open [MaxDepth + 1]level
	open[0] = level{1, p}
	depth, elements, i := 0, 0, 0
	cost, most := int64(0), allocFloor+min(int64(len(b))*allocRatio, allocMost)
	for {
		for open[depth].left == 0 {
			if depth == 0 {
				if i != len(b) {
					return badValue("%d bytes after the value", len(b)-i)
				}
				return nil
			}
			depth--
		}
		l := &open[depth]
		p := l.p
		if depth > 0 {
			p = p.child(l.left)
		}
		l.left--
		if i < len(b) && (b[i] <= 0x7f && (p == nil || p.kind != planPointer) || b[i] == 0xc0) {
			i++ // small numbers and nil, the most frequent, cost nothing
			continue
		}
		o, err := readObject(b, i)
		if err != nil {
			return err
		}
		for p != nil && p.kind == planPointer && o.code != 0xc0 {
			cost += rounded(p.elem.size)
			p = p.elem
		}
		if o.form == formExt {
			if err := checkExt(&o, p); err != nil {
				return err
			}
			if exts != nil && o.ext == extTime {
				*exts = append(*exts, i+o.head)
			}
		}
		i += o.head
		if o.form == formPlain || o.form == formExt {
			i += int(o.length)
			if cost += p.plainCost(&o); cost > most {
				return tooCostly(i, most)
			}
			continue
		}
		n := int64(o.length)
		if o.form == formMap {
			if p != nil && p.kind == planStruct {
				return badValue("a map at %d where a struct, an array of fields, was due", i)
			}
			n *= 2
		}
		if n > int64(len(b)-i) { // each element has at least a byte
			return badValue("%d elements at %d where %d bytes are left", n, i, len(b)-i)
		}
		if elements += int(n); elements > MaxElements {
			return badValue("more than %d elements", MaxElements)
		}
		if depth == MaxDepth {
			return badValue("nested deeper than %d", MaxDepth)
		}
		if cost += p.containerCost(o.form, int64(o.length)); cost > most {
			return tooCostly(i, most)
		}
		depth++
		open[depth] = level{uint32(n), p.within(o.form, int(n))}
	}
}

func tooCostly(at int, most int64) error {
	return badValue("decoding would allocate more than %d bytes, seen at %d", most, at)
}

// checkExt rejects extensions that the decoder would misread. Where a map is due, the decoder skips only the
// extension's header and reads the unchecked contents as a map. Types that decode themselves may expect a map
// anywhere. For them, source guards times, and checkExt rejects interned strings, whose contents source
// cannot tell from codes.
func checkExt(o *object, p *plan) error {
	if p != nil && p.kind == planMap {
		return badValue("an extension where a map was due")
	}
	switch n := o.length; {
	case o.ext == extTime && (n == 4 || n == 8 || n == 12):
	case o.ext == extInterned && (n == 1 || n == 2) && (p == nil || !p.custom):
	default:
		return badValue("extension type %d of %d bytes", o.ext, n)
	}
	return nil
}

type form uint8

const (
	formPlain form = iota
	formExt
	formArray
	formMap
)

// object describes the head of a MessagePack object.
type object struct {
	length uint32 // bytes of contents, or elements, or entries
	head   int    // bytes before the contents
	code   byte
	ext    int8 // the type of an extension
	form   form
}

// readObject reads the head of the object at b[i:]. It checks that the contents of a plain object or an
// extension are present.
func readObject(b []byte, i int) (object, error) {
	rest := b[i:]
	if len(rest) == 0 {
		return object{}, badValue("cut short after %d bytes", i)
	}
	c := rest[0]
	o := object{code: c, head: 1}
	width := 0 // of the length field
	switch {
	case c <= 0x7f || c >= 0xe0 || c == 0xc0 || c == 0xc2 || c == 0xc3: // fixint, nil, bool
		return o, nil
	case c <= 0x8f: // fixmap
		o.form, o.length = formMap, uint32(c&0x0f)
	case c <= 0x9f: // fixarray
		o.form, o.length = formArray, uint32(c&0x0f)
	case c <= 0xbf: // fixstr
		o.length = uint32(c & 0x1f)
	case c == 0xc1:
		return o, badValue("byte 0xc1 at %d", i)
	case c <= 0xc6: // bin 8, 16, 32
		width = 1 << (c - 0xc4)
	case c <= 0xc9: // ext 8, 16, 32
		o.form, width = formExt, 1<<(c-0xc7)
	case c == 0xca: // float 32
		o.length = 4
	case c == 0xcb: // float 64
		o.length = 8
	case c <= 0xcf: // uint 8 to 64
		o.length = 1 << (c - 0xcc)
	case c <= 0xd3: // int 8 to 64
		o.length = 1 << (c - 0xd0)
	case c <= 0xd8: // fixext 1 to 16
		o.form, o.length = formExt, 1<<(c-0xd4)
	case c <= 0xdb: // str 8, 16, 32
		width = 1 << (c - 0xd9)
	case c <= 0xdd: // array 16, 32
		o.form, width = formArray, 2<<(c-0xdc)
	default: // 0xde, 0xdf: map 16, 32
		o.form, width = formMap, 2<<(c-0xde)
	}
	o.head += width
	typeAt := o.head
	if o.form == formExt {
		o.head++
	}
	if o.head > len(rest) {
		return o, badValue("cut short after %d bytes", len(b))
	}
	switch width {
	case 1:
		o.length = uint32(rest[1])
	case 2:
		o.length = uint32(binary.BigEndian.Uint16(rest[1:]))
	case 4:
		o.length = binary.BigEndian.Uint32(rest[1:])
	}
	if o.form == formExt {
		o.ext = int8(rest[typeAt])
	}
	if o.form <= formExt && uint64(o.length) > uint64(len(rest)-o.head) {
		return o, badValue("%d bytes at %d where %d are left", o.length, i+o.head, len(rest)-o.head)
	}
	return o, nil
}
