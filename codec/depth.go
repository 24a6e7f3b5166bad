package codec

import "reflect"

// A value that points back to itself, or that shares one part over and over, has an endless encoding.
// Encoding such a value recurses until the stack overflows, which ends the process, or writes until memory
// runs out. Two bounds stop it:
//
//   - Values of types that can be that deep (recursive types and those with interfaces) are walked before
//     they are encoded.
//   - The walk does not see into types that encode themselves. So the writer checks from time to time what
//     has been written.
const (
	// maxHops is the maximum number of nested pointers, interfaces, structs, lists and maps in a value:
	// several for each of the MaxDepth levels of the encoding.
	maxHops = 8 * MaxDepth
	// maxSteps is the maximum number of parts of a value, including parts that are not elements of the
	// encoding.
	maxSteps = 4 * MaxElements
	// firstLook is the number of written bytes after which the writer checks for the first time. It checks
	// again each time that number has doubled.
	firstLook = 16 << 10
	// maxEncoded is the longest encoding, in bytes.
	maxEncoded = 1 << 30
)

// deep reports whether values of the type can have unlimited depth. In open, true marks the types that
// contain t, and false marks types known not to be deep.
func deep(t reflect.Type, open map[reflect.Type]bool) bool {
	if within, seen := open[t]; seen {
		return within
	}
	open[t] = true
	defer func() { open[t] = false }()
	switch t.Kind() {
	case reflect.Interface:
		return true
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return deep(t.Elem(), open)
	case reflect.Map:
		return deep(t.Key(), open) || deep(t.Elem(), open)
	case reflect.Struct:
		if t == timeType {
			return false
		}
		for f := range t.Fields() {
			if deep(f.Type, open) {
				return true
			}
		}
	}
	return false
}

// depthWalk bounds the depth of a value before it is encoded.
type depthWalk struct {
	shapes *shapes
	steps  int
}

func (w *depthWalk) check(v reflect.Value, hops int) error {
	if w.steps++; w.steps > maxSteps {
		return badValue("more than %d elements, pointers and fields: does it contain itself?", maxSteps)
	}
	if hops > maxHops {
		return badValue("nested deeper than %d: does it point back to itself?", MaxDepth)
	}
	s := w.shapes.get(v.Type())
	if s.flat || s.custom {
		return nil
	}
	switch s.kind {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			return w.check(v.Elem(), hops+1)
		}
	case reflect.Struct:
		for _, i := range s.fields {
			if err := w.check(v.Field(i), hops+1); err != nil {
				return err
			}
		}
	case reflect.Slice, reflect.Array:
		if k := v.Type().Elem().Kind(); k == reflect.String || isFlat(v.Type().Elem()) {
			return nil
		}
		for i := range v.Len() {
			if err := w.check(v.Index(i), hops+1); err != nil {
				return err
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			if err := w.check(it.Key(), hops+1); err != nil {
				return err
			}
			if err := w.check(it.Value(), hops+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkSoFar returns an error if what has been written so far cannot become a value that checkMsgpack
// accepts, because it has too many levels or elements.
func checkSoFar(b []byte) error {
	var left [MaxDepth + 1]uint32
	left[0] = 1
	depth, elements := 0, 0
	for i := 0; ; {
		for left[depth] == 0 {
			if depth == 0 {
				return nil // more than one value: checkMsgpack says so
			}
			depth--
		}
		left[depth]--
		o, err := readObject(b, i)
		if err != nil {
			return nil // it, or its contents, is not complete yet
		}
		i += o.head
		if o.form == formPlain || o.form == formExt {
			i += int(o.length)
			continue
		}
		n := int64(o.length)
		if o.form == formMap {
			n *= 2
		}
		if n+int64(elements) > MaxElements {
			return badValue("more than %d elements", MaxElements)
		}
		elements += int(n)
		if depth == MaxDepth {
			return badValue("nested deeper than %d: does it point back to itself?", MaxDepth)
		}
		depth++
		left[depth] = uint32(n)
	}
}
