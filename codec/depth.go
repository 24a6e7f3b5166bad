package codec

import "reflect"

// A value that points back to itself, or that is shared again and again, has an encoding without end: encoding recurses
// until the stack overflows, which ends the process, or writes until the memory is used up. Two bounds stop it:
//
//   - Types that can be that deep, the recursive ones and those with interfaces, are walked before they are encoded.
//   - What encodes itself is not seen by the walk. So the writer looks from time to time at what has been written.
const (
	// maxHops is how many pointers, interfaces, structs, lists and maps in a row a value may have: several for each
	// level of the encoding, of which there are MaxDepth.
	maxHops = 8 * MaxDepth
	// maxSteps is how many parts a value may have, those counted that are no elements of the encoding.
	maxSteps = 4 * MaxElements
	// firstLook is after how many bytes the writer looks for the first time: then each time that they have doubled.
	firstLook = 16 << 10
	// maxEncoded is the longest encoding, in bytes.
	maxEncoded = 1 << 30
)

// deep reports whether values of the type can be of any depth. open has the types that contain it, with true, and those that are
// known not to be deep, with false.
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

// checkSoFar returns an error if what has been written so far is the beginning of no value that checkMsgpack accepts,
// because of its depth or its elements.
func checkSoFar(b []byte) error {
	var left [MaxDepth + 1]uint32
	left[0] = 1
	depth, elements := 0, 0
	for i := 0; i < len(b); {
		for left[depth] == 0 {
			if depth == 0 {
				return nil // more than one value: checkMsgpack says so
			}
			depth--
		}
		left[depth]--
		o, err := readObject(b, i)
		if err != nil {
			return nil // its contents are still to come
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
	return nil
}
