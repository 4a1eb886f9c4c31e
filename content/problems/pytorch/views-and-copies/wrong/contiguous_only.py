# expect: wrong answer: values
# contiguous() gives a contiguous view back as it is, still shared.
def own(source, result):
    address = result.untyped_storage().data_ptr()
    shared = address != 0 and address == source.untyped_storage().data_ptr()
    return shared, result.contiguous()
