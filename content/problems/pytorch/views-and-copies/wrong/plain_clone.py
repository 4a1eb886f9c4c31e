# expect: wrong answer: values
# The copy of a transposed tensor is transposed in memory, too.
def own(source, result):
    address = result.untyped_storage().data_ptr()
    shared = address != 0 and address == source.untyped_storage().data_ptr()
    return shared, result.clone() if shared or not result.is_contiguous() else result
