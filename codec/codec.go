package codec

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Codec turns values into bytes and back. It is safe for concurrent use.
type Codec[V any] interface {
	// Name is part of a namespace's fingerprint. Two codecs that cannot read each other's bytes have
	// different names.
	Name() string
	// Append appends the encoding of v to dst and returns the extended slice. It retains neither.
	Append(dst []byte, v V) ([]byte, error)
	// Decode returns the value whose encoding is src. src is borrowed: Decode must not retain or modify it.
	// src may come off the wire and be hostile: Decode then returns an error, and it allocates only in
	// proportion to the length of src.
	Decode(src []byte) (V, error)
}

// ErrValue is wrapped by every error that malformed value bytes cause.
var ErrValue = errors.New("malformed value")

func badValue(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrValue, fmt.Sprintf(format, args...))
}

// Raw returns a codec that leaves bytes and strings as they are. Decode copies. An empty encoding decodes to
// nil if V is a slice.
func Raw[V ~[]byte | ~string]() Codec[V] {
	return raw[V]{text: reflect.TypeFor[V]().Kind() == reflect.String}
}

type raw[V ~[]byte | ~string] struct{ text bool }

func (raw[V]) Name() string                           { return "raw" }
func (raw[V]) Append(dst []byte, v V) ([]byte, error) { return append(dst, v...), nil }

func (r raw[V]) Decode(src []byte) (V, error) {
	if r.text {
		return V(src), nil // the conversion to a string copies
	}
	if len(src) == 0 {
		var none V
		return none, nil
	}
	own := make([]byte, len(src)) // append would give it capacity beyond its length
	copy(own, src)
	return V(own), nil
}

// Schema describes V's type as far as the type decides what an encoding means: kinds, field names and tags,
// in order. The description is the same in every build of the same type. It omits the type's own name, so
// renaming a type keeps its values readable. Only types that encode themselves appear by name, because their
// output is opaque.
func Schema[V any]() string {
	d := describer{seen: map[reflect.Type]int{}}
	d.describe(reflect.TypeFor[V]())
	return d.out.String()
}

// SchemaHash is a 64-bit hash of Schema.
func SchemaHash[V any]() uint64 { return xxhash.Sum64String(Schema[V]()) }

// describer writes a description. A struct that it has written before, or is still writing because the type
// is recursive, appears as its number.
type describer struct {
	out  strings.Builder
	seen map[reflect.Type]int
}

func (d *describer) describe(t reflect.Type) {
	if by := selfEncoding(t); by != "" {
		fmt.Fprintf(&d.out, "!%s(%s)", t, by)
	}
	if t.Name() != "" && t.Kind() > reflect.Complex128 && t.Kind() != reflect.String {
		if n, ok := d.seen[t]; ok {
			fmt.Fprintf(&d.out, "^%d", n)
			return
		}
		d.seen[t] = len(d.seen)
	}
	switch t.Kind() {
	case reflect.Pointer:
		d.out.WriteByte('*')
		d.describe(t.Elem())
	case reflect.Slice:
		d.out.WriteString("[]")
		d.describe(t.Elem())
	case reflect.Array:
		fmt.Fprintf(&d.out, "[%d]", t.Len())
		d.describe(t.Elem())
	case reflect.Map:
		d.out.WriteString("map[")
		d.describe(t.Key())
		d.out.WriteByte(']')
		d.describe(t.Elem())
	case reflect.Struct:
		d.out.WriteByte('{')
		for f := range t.Fields() {
			if !f.IsExported() && !f.Anonymous {
				continue
			}
			if f.Anonymous {
				d.out.WriteByte('+')
			}
			d.out.WriteString(f.Name)
			for _, tag := range []string{"msgpack", "json"} {
				if v, ok := f.Tag.Lookup(tag); ok {
					fmt.Fprintf(&d.out, " %s:%q", tag, v)
				}
			}
			d.out.WriteByte(' ')
			d.describe(f.Type)
			d.out.WriteByte(';')
		}
		d.out.WriteByte('}')
	case reflect.Interface:
		d.out.WriteString("interface")
		if t.NumMethod() > 0 {
			d.out.WriteString("(" + t.String() + ")")
		}
	default:
		d.out.WriteString(t.Kind().String())
	}
}

// selfEncoding names the interfaces by which a type that has a name encodes itself.
func selfEncoding(t reflect.Type) string {
	if t.Name() == "" || t.Kind() == reflect.Interface {
		return ""
	}
	by, p := "", reflect.PointerTo(t)
	for i, x := range selfEncodeTypes {
		if p.Implements(x) {
			by += string(rune('a' + i))
		}
	}
	if p.Implements(reflect.TypeFor[json.Marshaler]()) || p.Implements(reflect.TypeFor[json.Unmarshaler]()) {
		by += "j"
	}
	return by
}
