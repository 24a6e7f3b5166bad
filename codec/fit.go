package codec

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// A Checker is a Codec that can tell, before any value exists, that its type cannot be encoded.
type Checker interface {
	// Check returns nil, or an error that names the part of the type that cannot be encoded. Safe
	// for concurrent use.
	Check() error
}

// A Loser is a Codec that can tell which parts of its type are not encoded.
type Loser interface {
	// Lost returns the paths of the fields that Decode leaves empty: unexported fields, and fields whose tag
	// excludes them. Safe for concurrent use.
	Lost() []string
}

// Check implements Checker. It rejects these types:
//
//   - Types that cannot be encoded, such as channels and functions.
//   - Types that cannot be decoded again: interfaces with methods, embedded pointers to unexported structs,
//     uintptr, and types that encode themselves in one way and do not decode themselves in the same way.
//   - Structs that would encode to nothing because none of their fields is exported.
func (c *msgpackCodec[V]) Check() error {
	return fits(reflect.TypeFor[V](), msgpackConvention())
}

// Lost implements Loser.
func (c *msgpackCodec[V]) Lost() []string { return msgpackConvention().lost(reflect.TypeFor[V]()) }

// Check implements Checker, with the same rules.
func (c *jsonCodec[V]) Check() error {
	return fits(reflect.TypeFor[V](), jsonConvention())
}

// Lost implements Loser.
func (c *jsonCodec[V]) Lost() []string { return jsonConvention().lost(reflect.TypeFor[V]()) }

func msgpackConvention() convention {
	return convention{tag: "msgpack", self: selfEncodeTypes[:], wide: true}
}

func jsonConvention() convention {
	return convention{tag: "json", self: []reflect.Type{
		reflect.TypeFor[json.Marshaler](), reflect.TypeFor[json.Unmarshaler](),
		reflect.TypeFor[encoding.TextMarshaler](), reflect.TypeFor[encoding.TextUnmarshaler](),
	}}
}

// Check implements Checker by asking the inner codec, if that is a Checker.
func (c *compressed[V]) Check() error {
	if k, ok := c.inner.(Checker); ok {
		return k.Check()
	}
	return nil
}

// Lost implements Loser by asking the inner codec, if that is a Loser.
func (c *compressed[V]) Lost() []string {
	if l, ok := c.inner.(Loser); ok {
		return l.Lost()
	}
	return nil
}

// A convention holds what reflection must know about an encoder.
type convention struct {
	tag string // of fields; "-" leaves one out
	// self holds pairs of interfaces in order of preference. A type that implements the first of a pair
	// encodes itself; a type that implements the second decodes itself.
	self []reflect.Type
	wide bool // msgpack, which cannot decode uintptr
}

// encodesBy returns the index of the first pair whose interface for encoding (decoding 0) or for decoding
// (decoding 1) t implements. -1: none.
func (c convention) encodesBy(t reflect.Type, decoding int) int {
	if t.Kind() == reflect.Interface {
		return -1
	}
	for i := 0; i < len(c.self); i += 2 {
		if reflect.PointerTo(t).Implements(c.self[i+decoding]) {
			return i
		}
	}
	return -1
}

// selfEncoding reports whether t has methods that the encoder or the decoder uses.
func (c convention) selfEncoding(t reflect.Type) bool {
	return c.encodesBy(t, 0) >= 0 || c.encodesBy(t, 1) >= 0
}

// fits returns nil if values of type t can be encoded, or an error that gives the reason.
func fits(t reflect.Type, c convention) error {
	return c.fit(t, t.String(), map[reflect.Type]bool{})
}

// fit is fits for the part of the type at path. seen stops the recursion on types that contain themselves.
func (c convention) fit(t reflect.Type, path string, seen map[reflect.Type]bool) error {
	if seen[t] || t == timeType {
		return nil
	}
	seen[t] = true
	if t.Kind() != reflect.Pointer && c.selfEncoding(t) {
		in, out := c.encodesBy(t, 0), c.encodesBy(t, 1)
		if in != out {
			return fmt.Errorf("%s: a %v encodes itself in one way and decodes itself in another, or in none: give it both methods of a pair, as MarshalBinary and UnmarshalBinary", path, t)
		}
		return nil
	}
	switch t.Kind() {
	case reflect.Interface:
		if t.NumMethod() > 0 {
			return fmt.Errorf("%s: a %v cannot be decoded, since its encoding does not say which type it held: use that type, or leave the field out with the tag %s:\"-\"", path, t, c.tag)
		}
	case reflect.Uintptr:
		if c.wide {
			return fmt.Errorf("%s: a %v cannot be decoded: use uint64", path, t)
		}
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer:
		return fmt.Errorf("%s: a %v cannot be encoded", path, t)
	case reflect.Pointer:
		return c.fit(t.Elem(), path, seen)
	case reflect.Slice, reflect.Array:
		return c.fit(t.Elem(), path+"[]", seen)
	case reflect.Map:
		if err := c.fit(t.Key(), path+"[key]", seen); err != nil {
			return err
		}
		return c.fit(t.Elem(), path+"[]", seen)
	case reflect.Struct:
		encoded, err := c.fitFields(t, path, seen)
		if err == nil && !encoded && t.NumField() > 0 {
			err = fmt.Errorf("%s: no field of a %v would be encoded, because none is exported: export them, or give it methods that encode it", path, t)
		}
		return err
	}
	return nil
}

// fitFields is fit for the fields of a struct. It reports whether any of them is encoded.
func (c convention) fitFields(t reflect.Type, path string, seen map[reflect.Type]bool) (encoded bool, err error) {
	for f := range t.Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get(c.tag), ","); name == "-" || !f.IsExported() && !f.Anonymous {
			continue
		}
		inner := f.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if f.Anonymous && !f.IsExported() && f.Type.Kind() == reflect.Pointer {
			return encoded, fmt.Errorf("%s.%s: an embedded pointer to an unexported struct cannot be decoded: embed the struct, or export it", path, f.Name)
		}
		if f.Anonymous && inner.Kind() == reflect.Struct && inner != timeType && !c.selfEncoding(inner) {
			if !seen[inner] { // its fields are promoted; it may have none, as a mutex
				seen[inner] = true
				some, err := c.fitFields(inner, path, seen)
				if encoded = encoded || some; err != nil {
					return encoded, err
				}
				delete(seen, inner)
			}
			continue
		}
		if !f.IsExported() {
			continue
		}
		encoded = true
		if err := c.fit(f.Type, path+"."+f.Name, seen); err != nil {
			return encoded, err
		}
	}
	return encoded, nil
}

// lost returns the paths of the fields of t that are not encoded.
func (c convention) lost(t reflect.Type) (paths []string) {
	seen := map[reflect.Type]bool{}
	var look func(t reflect.Type, path string)
	look = func(t reflect.Type, path string) {
		if seen[t] || t == timeType || t.Kind() != reflect.Pointer && c.selfEncoding(t) {
			return
		}
		seen[t] = true
		switch t.Kind() {
		case reflect.Pointer:
			look(t.Elem(), path)
		case reflect.Slice, reflect.Array:
			look(t.Elem(), path+"[]")
		case reflect.Map:
			look(t.Key(), path+"[key]")
			look(t.Elem(), path+"[]")
		case reflect.Struct:
			for f := range t.Fields() {
				name, _, _ := strings.Cut(f.Tag.Get(c.tag), ",")
				switch {
				case f.Name == "_", f.Type.Size() == 0 && !f.IsExported():
				case name == "-", !f.IsExported() && !f.Anonymous:
					paths = append(paths, path+"."+f.Name)
				default:
					look(f.Type, path+"."+f.Name)
				}
			}
		}
	}
	look(t, t.String())
	return paths
}
