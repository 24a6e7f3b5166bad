package codec

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// A Checker is a Codec that can tell, before there is any value, that its type cannot be encoded.
type Checker interface {
	// Check returns nil, or an error that names the part of the type that cannot be encoded. Safe
	// for concurrent use.
	Check() error
}

// Check implements Checker: it refuses channels, functions and the like, and structs of which
// nothing would be encoded, since all of their fields are unexported.
func (c *msgpackCodec[V]) Check() error {
	return fits(reflect.TypeFor[V](), convention{"msgpack", selfEncodeTypes[:]})
}

// Check implements Checker, with the same rules.
func (jsonCodec[V]) Check() error {
	return fits(reflect.TypeFor[V](), convention{"json", []reflect.Type{
		reflect.TypeFor[json.Marshaler](), reflect.TypeFor[encoding.TextMarshaler](),
	}})
}

// Check implements Checker: it asks the inner codec, if that is one.
func (c *compressed[V]) Check() error {
	if k, ok := c.inner.(Checker); ok {
		return k.Check()
	}
	return nil
}

// A convention is what reflection has to know of an encoder.
type convention struct {
	tag  string         // of fields; "-" leaves one out
	self []reflect.Type // whoever implements one encodes itself
}

// fits reports why values of type t cannot be encoded, or nil.
func fits(t reflect.Type, c convention) error {
	return c.fit(t, t.String(), map[reflect.Type]bool{})
}

// fit is fits for a part of the type that is found at path. seen ends types that contain themselves.
func (c convention) fit(t reflect.Type, path string, seen map[reflect.Type]bool) error {
	if seen[t] || t == timeType {
		return nil
	}
	seen[t] = true
	if t.Kind() != reflect.Interface && slices.ContainsFunc(c.self, reflect.PointerTo(t).Implements) {
		return nil
	}
	switch t.Kind() {
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer:
		return fmt.Errorf("%s: a %v cannot be encoded", path, t)
	case reflect.Pointer:
		return c.fit(t.Elem(), path, seen)
	case reflect.Slice, reflect.Array:
		return c.fit(t.Elem(), path+"[]", seen)
	case reflect.Map:
		return c.fit(t.Elem(), path+"[]", seen)
	case reflect.Struct:
		encoded, err := c.fitFields(t, path, seen)
		if err == nil && encoded == 0 && t.NumField() > 0 {
			err = fmt.Errorf("%s: nothing of a %v would be encoded, it has no exported fields: export them, or give it methods that encode it", path, t)
		}
		return err
	}
	return nil
}

// fitFields is fit for the fields of a struct, of which it returns how many are encoded.
func (c convention) fitFields(t reflect.Type, path string, seen map[reflect.Type]bool) (encoded int, err error) {
	for f := range t.Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get(c.tag), ","); name == "-" || !f.IsExported() && !f.Anonymous {
			continue
		}
		inner := f.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if f.Anonymous && inner.Kind() == reflect.Struct && inner != timeType && !slices.ContainsFunc(c.self, reflect.PointerTo(inner).Implements) {
			if !seen[inner] { // its fields stand in place of it; it may have none, as a mutex
				seen[inner] = true
				n, err := c.fitFields(inner, path, seen)
				if encoded += n; err != nil {
					return encoded, err
				}
				delete(seen, inner)
			}
			continue
		}
		if !f.IsExported() {
			continue
		}
		encoded++
		if err := c.fit(f.Type, path+"."+f.Name, seen); err != nil {
			return encoded, err
		}
	}
	return encoded, nil
}
