package api

// firstFault is the first fault of those given, or nil.
func firstFault(faults ...*fault) *fault {
	for _, f := range faults {
		if f != nil {
			return f
		}
	}
	return nil
}

func withinBytes(field, value string, most int) *fault {
	if len(value) > most {
		return refuse(reasonFieldTooLong, "%s has %d bytes, more than the %d allowed", field, len(value), most)
	}
	return nil
}

func withinItems(field string, have, most int) *fault {
	if have > most {
		return refuse(reasonBatchTooLarge, "%s has %d items, more than the %d allowed", field, have, most)
	}
	return nil
}
