-- The view metric_points: every point as a row, for psql, Grafana and DuckDB. PostgreSQL is often built without zstd, so
-- the decoder is written in PL/pgSQL after RFC 8878. It is slow beside the server's own reading, some 100,000 points a second.

-- The bits of a zstd bit stream from position `at` (counted from the stream's first bit), lowest first.
CREATE FUNCTION stepstream_bits(stream bytea, at integer, count integer) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE WHEN count = 0 THEN 0 ELSE (
        (get_byte(stream, at >> 3)::bigint
            | (get_byte(stream, (at >> 3) + 1)::bigint << 8)
            | (get_byte(stream, (at >> 3) + 2)::bigint << 16)
            | (get_byte(stream, (at >> 3) + 3)::bigint << 24)
            | (get_byte(stream, (at >> 3) + 4)::bigint << 32)) >> (at & 7)) & ((1::bigint << count) - 1) END
$$;

-- A bit stream that is read backwards, between eight zero bytes on either side, and the position behind its last bit.
CREATE FUNCTION stepstream_backward(stream bytea, OUT padded bytea, OUT at integer)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    last integer := get_byte(stream, length(stream) - 1);
    zeros constant bytea := '\x0000000000000000';
BEGIN
    IF last = 0 THEN
        RAISE EXCEPTION 'a zstd bit stream has no end mark' USING ERRCODE = 'data_corrupted';
    END IF;
    padded := zeros || stream || zeros;
    -- The highest bit that is set marks the end.
    at := 64 + 8 * (length(stream) - 1) + floor(log(2, last))::integer;
END
$$;

-- The number of the highest bit that is set.
CREATE FUNCTION stepstream_top_bit(value bigint) RETURNS integer
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    top integer := -1;
BEGIN
    WHILE value > 0 LOOP
        value := value >> 1;
        top := top + 1;
    END LOOP;
    RETURN top;
END
$$;

-- RFC 8878, 4.1.1: the distribution of symbols that a stream begins with, and how many bytes that takes.
CREATE FUNCTION stepstream_fse_read(stream bytea, OUT norm integer[], OUT accuracy integer, OUT used integer)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    padded constant bytea := stream || '\x0000000000000000'::bytea;
    at integer := 4;
    remaining integer;
    width integer;
    value integer;
    low_mask integer;
    threshold integer;
    zeros integer;
BEGIN
    accuracy := stepstream_bits(padded, 0, 4) + 5;
    remaining := 1 << accuracy;
    norm := '{}';
    WHILE remaining > 0 LOOP
        width := stepstream_top_bit(remaining + 1) + 1;
        value := stepstream_bits(padded, at, width);
        low_mask := (1 << (width - 1)) - 1;
        threshold := (1 << width) - 1 - (remaining + 1);
        at := at + width;
        IF (value & low_mask) < threshold THEN
            at := at - 1;
            value := value & low_mask;
        ELSIF value > low_mask THEN
            value := value - threshold;
        END IF;
        norm := norm || (value - 1);
        remaining := remaining - abs(value - 1);
        IF value = 1 THEN
            LOOP
                zeros := stepstream_bits(padded, at, 2);
                at := at + 2;
                norm := norm || array_fill(0, ARRAY[zeros]);
                EXIT WHEN zeros < 3;
            END LOOP;
        END IF;
    END LOOP;
    used := (at + 7) >> 3;
END
$$;

-- RFC 8878, 4.1.1: the decoding table of a distribution; arrays from 1.
CREATE FUNCTION stepstream_fse_table(
    norm integer[], accuracy integer, OUT symbols integer[], OUT widths integer[], OUT bases integer[])
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    size constant integer := 1 << accuracy;
    step constant integer := (size >> 1) + (size >> 3) + 3;
    high integer := size;
    place integer := 0;
    next integer[] := norm;
BEGIN
    symbols := array_fill(0, ARRAY[size]);
    widths := symbols;
    bases := symbols;
    FOR symbol IN 1 .. cardinality(norm) LOOP
        IF norm[symbol] = -1 THEN
            symbols[high] := symbol - 1;
            high := high - 1;
            next[symbol] := 1;
        END IF;
    END LOOP;
    FOR symbol IN 1 .. cardinality(norm) LOOP
        FOR i IN 1 .. norm[symbol] LOOP
            symbols[place + 1] := symbol - 1;
            LOOP
                place := (place + step) & (size - 1);
                EXIT WHEN place < high;
            END LOOP;
        END LOOP;
    END LOOP;
    FOR state IN 1 .. size LOOP
        widths[state] := accuracy - stepstream_top_bit(next[symbols[state] + 1]);
        bases[state] := (next[symbols[state] + 1] << widths[state]) - size;
        next[symbols[state] + 1] := next[symbols[state] + 1] + 1;
    END LOOP;
END
$$;

-- RFC 8878, 4.2.1: the Huffman table that a block begins with, by all codes of its longest length; arrays from 1.
CREATE FUNCTION stepstream_huffman_table(
    stream bytea, OUT symbols integer[], OUT widths integer[], OUT longest integer, OUT used integer)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    head constant integer := get_byte(stream, 0);
    weights integer[] := '{}';
    norm integer[];
    accuracy integer;
    read integer;
    table_symbols integer[];
    table_widths integer[];
    table_bases integer[];
    bits bytea;
    at integer;
    states integer[];
    turn integer := 1;
    total integer := 0;
    missing integer;
    filled integer := 0;
BEGIN
    IF head >= 128 THEN
        FOR i IN 0 .. head - 128 LOOP
            weights := weights || ((get_byte(stream, 1 + i / 2) >> (4 * (1 - i % 2))) & 15);
        END LOOP;
        used := 1 + (head - 127 + 1) / 2;
    ELSE
        used := 1 + head;
        SELECT * INTO norm, accuracy, read FROM stepstream_fse_read(substr(stream, 2, head));
        SELECT * INTO table_symbols, table_widths, table_bases FROM stepstream_fse_table(norm, accuracy);
        SELECT * INTO bits, at FROM stepstream_backward(substr(stream, 2 + read, head - read));
        states := ARRAY[0, 0];
        FOR i IN 1 .. 2 LOOP
            at := at - accuracy;
            states[i] := stepstream_bits(bits, at, accuracy);
        END LOOP;
        -- Two states take turns until the bits are used up; then the other one has the last word.
        LOOP
            weights := weights || table_symbols[states[turn] + 1];
            at := at - table_widths[states[turn] + 1];
            IF at < 64 THEN
                weights := weights || table_symbols[states[3 - turn] + 1];
                EXIT;
            END IF;
            states[turn] := table_bases[states[turn] + 1]
                + stepstream_bits(bits, at, table_widths[states[turn] + 1]);
            turn := 3 - turn;
        END LOOP;
    END IF;
    FOR i IN 1 .. cardinality(weights) LOOP
        total := total + CASE WHEN weights[i] > 0 THEN 1 << (weights[i] - 1) ELSE 0 END;
    END LOOP;
    longest := stepstream_top_bit(total) + 1;
    missing := (1 << longest) - total;
    weights := weights || (stepstream_top_bit(missing) + 1);
    symbols := array_fill(0, ARRAY[1 << longest]);
    widths := symbols;
    FOR weight IN 1 .. longest LOOP
        FOR symbol IN 1 .. cardinality(weights) LOOP
            IF weights[symbol] = weight THEN
                FOR i IN 1 .. 1 << (weight - 1) LOOP
                    filled := filled + 1;
                    symbols[filled] := symbol - 1;
                    widths[filled] := longest + 1 - weight;
                END LOOP;
            END IF;
        END LOOP;
    END LOOP;
END
$$;

-- RFC 8878, 4.2.2: one stream of Huffman codes, as so many bytes.
CREATE FUNCTION stepstream_huffman_read(
    stream bytea, count integer, symbols integer[], widths integer[], longest integer) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    bits bytea;
    at integer;
    place integer;
    code integer;
    mask constant integer := (1 << longest) - 1;
    found text[] := array_fill(''::text, ARRAY[count]);
    named constant text[] := ARRAY(SELECT lpad(to_hex(one), 2, '0') FROM unnest(symbols) AS one);
BEGIN
    SELECT * INTO bits, at FROM stepstream_backward(stream);
    FOR i IN 1 .. count LOOP
        place := at - longest;
        code := (((get_byte(bits, place >> 3) | (get_byte(bits, (place >> 3) + 1) << 8)
            | (get_byte(bits, (place >> 3) + 2) << 16)) >> (place & 7)) & mask) + 1;
        found[i] := named[code];
        at := at - widths[code];
    END LOOP;
    RETURN decode(array_to_string(found, ''), 'hex');
END
$$;

-- So many bytes that repeat a pattern.
CREATE FUNCTION stepstream_repeat(pattern bytea, count integer) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    WHILE length(pattern) < count LOOP
        pattern := pattern || pattern;
    END LOOP;
    RETURN substr(pattern, 1, count);
END
$$;

-- What a zstd frame holds (RFC 8878, section 3): one frame without a dictionary; its checksum is not verified here.
CREATE FUNCTION stepstream_zstd(data bytea) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    ll_bases constant integer[] := '{0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,18,20,22,24,28,32,40,48,64,128,256,512,1024,2048,4096,8192,16384,32768,65536}';
    ll_extra constant integer[] := '{0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1,1,1,1,2,2,3,3,4,6,7,8,9,10,11,12,13,14,15,16}';
    ml_bases constant integer[] := '{3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,37,39,41,43,47,51,59,67,83,99,131,259,515,1027,2051,4099,8195,16387,32771,65539}';
    ml_extra constant integer[] := '{0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1,1,1,1,2,2,3,3,4,4,5,7,8,9,10,11,12,13,14,15,16}';
    ll_norm constant integer[] := '{4,3,2,2,2,2,2,2,2,2,2,2,2,1,1,1,2,2,2,2,2,2,2,2,2,3,2,1,1,1,1,1,-1,-1,-1,-1}';
    of_norm constant integer[] := '{1,1,1,1,1,1,2,2,2,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,-1,-1,-1,-1,-1}';
    ml_norm constant integer[] := '{1,4,3,2,2,2,2,2,2,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,-1,-1,-1,-1,-1,-1,-1}';
    flags integer;
    here integer;
    head integer;
    block_end integer;
    last_block boolean;
    block_kind integer;
    block_size integer;
    result bytea := '';
    literals bytea;
    literal_kind integer;
    literal_format integer;
    literal_count integer;
    literal_size integer;
    header bigint;
    tree_used integer;
    h_symbols integer[]; h_widths integer[]; h_longest integer;
    jump integer; part integer; lengths integer[];
    sequences integer; modes integer; mode integer;
    norm integer[]; accuracy integer; used integer;
    ll_s integer[]; ll_w integer[]; ll_b integer[]; ll_a integer;
    of_s integer[]; of_w integer[]; of_b integer[]; of_a integer;
    ml_s integer[]; ml_w integer[]; ml_b integer[]; ml_a integer;
    t_s integer[]; t_w integer[]; t_b integer[];
    bits bytea; at integer;
    ll_state integer; of_state integer; ml_state integer;
    code integer; offset_value bigint; match_length integer; literal_length integer; distance integer; which integer;
    recent integer[] := '{1,4,8}';
    taken integer;
BEGIN
    IF substr(data, 1, 4) <> '\x28b52ffd'::bytea THEN
        RAISE EXCEPTION 'this is no zstd frame' USING ERRCODE = 'data_corrupted';
    END IF;
    flags := get_byte(data, 4);
    here := 5 + CASE WHEN flags & 32 = 0 THEN 1 ELSE 0 END + (ARRAY[0, 1, 2, 4])[(flags & 3) + 1]
        + CASE WHEN flags >> 6 = 0 THEN (flags >> 5) & 1 ELSE 1 << (flags >> 6) END;
    LOOP
        head := get_byte(data, here) | (get_byte(data, here + 1) << 8) | (get_byte(data, here + 2) << 16);
        last_block := head & 1 = 1;
        block_kind := (head >> 1) & 3;
        block_size := head >> 3;
        here := here + 3;
        IF block_kind = 0 THEN
            result := result || substr(data, here + 1, block_size);
            here := here + block_size;
        ELSIF block_kind = 1 THEN
            result := result || stepstream_repeat(substr(data, here + 1, 1), block_size);
            here := here + 1;
        ELSE
            block_end := here + block_size;
            -- Literals (3.1.1.3.1)
            head := get_byte(data, here);
            literal_kind := head & 3;
            literal_format := (head >> 2) & 3;
            IF literal_kind < 2 THEN
                IF literal_format & 1 = 0 THEN
                    literal_count := head >> 3;
                    here := here + 1;
                ELSIF literal_format = 1 THEN
                    literal_count := (head >> 4) | (get_byte(data, here + 1) << 4);
                    here := here + 2;
                ELSE
                    literal_count := (head >> 4) | (get_byte(data, here + 1) << 4) | (get_byte(data, here + 2) << 12);
                    here := here + 3;
                END IF;
                IF literal_kind = 0 THEN
                    literals := substr(data, here + 1, literal_count);
                    here := here + literal_count;
                ELSE
                    literals := stepstream_repeat(substr(data, here + 1, 1), literal_count);
                    here := here + 1;
                END IF;
            ELSE
                header := stepstream_bits(substr(data, here + 1, 5), 0, 40);
                used := (ARRAY[10, 10, 14, 18])[literal_format + 1];
                literal_count := (header >> 4) & ((1 << used) - 1);
                literal_size := (header >> (4 + used)) & ((1 << used) - 1);
                here := here + (ARRAY[3, 3, 4, 5])[literal_format + 1];
                tree_used := 0;
                IF literal_kind = 2 THEN
                    SELECT * INTO h_symbols, h_widths, h_longest, tree_used
                    FROM stepstream_huffman_table(substr(data, here + 1, literal_size));
                END IF;
                IF literal_format = 0 THEN
                    literals := stepstream_huffman_read(
                        substr(data, here + tree_used + 1, literal_size - tree_used),
                        literal_count, h_symbols, h_widths, h_longest);
                ELSE
                    jump := here + tree_used;
                    lengths := ARRAY[
                        get_byte(data, jump) | (get_byte(data, jump + 1) << 8),
                        get_byte(data, jump + 2) | (get_byte(data, jump + 3) << 8),
                        get_byte(data, jump + 4) | (get_byte(data, jump + 5) << 8)];
                    lengths := lengths || (literal_size - tree_used - 6 - lengths[1] - lengths[2] - lengths[3]);
                    part := (literal_count + 3) / 4;
                    literals := '';
                    jump := jump + 6;
                    FOR i IN 1 .. 4 LOOP
                        literals := literals || stepstream_huffman_read(
                            substr(data, jump + 1, lengths[i]),
                            CASE WHEN i < 4 THEN part ELSE literal_count - 3 * part END,
                            h_symbols, h_widths, h_longest);
                        jump := jump + lengths[i];
                    END LOOP;
                END IF;
                here := here + literal_size;
            END IF;
            -- Sequences (3.1.1.3.2)
            sequences := get_byte(data, here);
            here := here + 1;
            IF sequences = 255 THEN
                sequences := (get_byte(data, here) | (get_byte(data, here + 1) << 8)) + 32512;
                here := here + 2;
            ELSIF sequences >= 128 THEN
                sequences := (sequences - 128) << 8 | get_byte(data, here);
                here := here + 1;
            END IF;
            taken := 0;
            IF sequences > 0 THEN
                modes := get_byte(data, here);
                here := here + 1;
                FOR kind IN 1 .. 3 LOOP
                    mode := (modes >> (8 - 2 * kind)) & 3;
                    CONTINUE WHEN mode = 3;
                    IF mode = 1 THEN
                        t_s := ARRAY[get_byte(data, here)];
                        t_w := '{0}';
                        t_b := '{0}';
                        accuracy := 0;
                        here := here + 1;
                    ELSE
                        IF mode = 2 THEN
                            SELECT * INTO norm, accuracy, used
                            FROM stepstream_fse_read(substr(data, here + 1, block_end - here));
                            here := here + used;
                        ELSE
                            norm := CASE kind WHEN 1 THEN ll_norm WHEN 2 THEN of_norm ELSE ml_norm END;
                            accuracy := CASE kind WHEN 2 THEN 5 ELSE 6 END;
                        END IF;
                        SELECT * INTO t_s, t_w, t_b FROM stepstream_fse_table(norm, accuracy);
                    END IF;
                    IF kind = 1 THEN
                        ll_s := t_s; ll_w := t_w; ll_b := t_b; ll_a := accuracy;
                    ELSIF kind = 2 THEN
                        of_s := t_s; of_w := t_w; of_b := t_b; of_a := accuracy;
                    ELSE
                        ml_s := t_s; ml_w := t_w; ml_b := t_b; ml_a := accuracy;
                    END IF;
                END LOOP;
                SELECT * INTO bits, at FROM stepstream_backward(substr(data, here + 1, block_end - here));
                at := at - ll_a;
                ll_state := stepstream_bits(bits, at, ll_a);
                at := at - of_a;
                of_state := stepstream_bits(bits, at, of_a);
                at := at - ml_a;
                ml_state := stepstream_bits(bits, at, ml_a);
                FOR number IN 1 .. sequences LOOP
                    code := of_s[of_state + 1];
                    at := at - code;
                    offset_value := (1::bigint << code) + stepstream_bits(bits, at, code);
                    code := ml_s[ml_state + 1] + 1;
                    at := at - ml_extra[code];
                    match_length := ml_bases[code] + stepstream_bits(bits, at, ml_extra[code]);
                    code := ll_s[ll_state + 1] + 1;
                    at := at - ll_extra[code];
                    literal_length := ll_bases[code] + stepstream_bits(bits, at, ll_extra[code]);
                    IF number < sequences THEN
                        at := at - ll_w[ll_state + 1];
                        ll_state := ll_b[ll_state + 1] + stepstream_bits(bits, at, ll_w[ll_state + 1]);
                        at := at - ml_w[ml_state + 1];
                        ml_state := ml_b[ml_state + 1] + stepstream_bits(bits, at, ml_w[ml_state + 1]);
                        at := at - of_w[of_state + 1];
                        of_state := of_b[of_state + 1] + stepstream_bits(bits, at, of_w[of_state + 1]);
                    END IF;
                    IF offset_value > 3 THEN
                        distance := offset_value - 3;
                        recent := ARRAY[distance, recent[1], recent[2]];
                    ELSE
                        which := offset_value + CASE WHEN literal_length = 0 THEN 1 ELSE 0 END;
                        distance := CASE WHEN which = 4 THEN recent[1] - 1 ELSE recent[which] END;
                        IF which > 2 THEN
                            recent := ARRAY[distance, recent[1], recent[2]];
                        ELSIF which = 2 THEN
                            recent := ARRAY[distance, recent[1], recent[3]];
                        END IF;
                    END IF;
                    result := result || substr(literals, taken + 1, literal_length);
                    taken := taken + literal_length;
                    result := result || stepstream_repeat(
                        substr(result, length(result) - distance + 1, least(distance, match_length)), match_length);
                END LOOP;
            END IF;
            result := result || substr(literals, taken + 1);
            here := block_end;
        END IF;
        EXIT WHEN last_block;
    END LOOP;
    RETURN result;
END
$$;

-- One msgpack value at a place (from 0): a number, bytes (text too), or how many items follow; nil is none of them.
CREATE FUNCTION stepstream_msgpack(data bytea, at integer, OUT number bigint, OUT bytes bytea, OUT items integer,
    OUT next integer)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    head constant integer := get_byte(data, at);
    width integer;
    size bigint := 0;
BEGIN
    IF head < 128 THEN
        number := head;
        next := at + 1;
    ELSIF head >= 224 THEN
        number := head - 256;
        next := at + 1;
    ELSIF head BETWEEN 128 AND 159 THEN
        items := (head & 15) * CASE WHEN head < 144 THEN 2 ELSE 1 END;
        next := at + 1;
    ELSIF head BETWEEN 160 AND 191 THEN
        bytes := substr(data, at + 2, head & 31);
        next := at + 1 + (head & 31);
    ELSIF head IN (192, 194, 195) THEN
        next := at + 1;
    ELSIF head IN (202, 203) THEN
        next := at + CASE head WHEN 202 THEN 5 ELSE 9 END;
    ELSIF head IN (196, 197, 198, 204, 205, 206, 207, 208, 209, 210, 211, 217, 218, 219, 220, 221, 222, 223) THEN
        width := CASE
            WHEN head IN (196, 204, 208, 217) THEN 1
            WHEN head IN (197, 205, 209, 218, 220, 222) THEN 2
            WHEN head IN (198, 206, 210, 219, 221, 223) THEN 4
            ELSE 8 END;
        FOR i IN 1 .. width LOOP
            size := (size << 8) | get_byte(data, at + i);
        END LOOP;
        next := at + 1 + width;
        IF head BETWEEN 204 AND 211 THEN
            number := size;
            IF head IN (208, 209, 210) AND size >= 1::bigint << (8 * width - 1) THEN
                number := size - (1::bigint << (8 * width));
            END IF;
        ELSIF head >= 220 THEN
            items := size * CASE WHEN head >= 222 THEN 2 ELSE 1 END;
        ELSE
            bytes := substr(data, next + 1, size::integer);
            next := next + size;
        END IF;
    ELSE
        RAISE EXCEPTION 'msgpack type % is not used here', head USING ERRCODE = 'data_corrupted';
    END IF;
END
$$;

-- The place behind one msgpack value with all it holds.
CREATE FUNCTION stepstream_msgpack_skip(data bytea, at integer) RETURNS integer
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    waiting integer := 1;
    here integer := at;
    found record;
BEGIN
    WHILE waiting > 0 LOOP
        SELECT * INTO found FROM stepstream_msgpack(data, here);
        waiting := waiting - 1 + coalesce(found.items, 0);
        here := found.next;
    END LOOP;
    RETURN here;
END
$$;

-- A msgpack array of integers, and the place behind it.
CREATE FUNCTION stepstream_msgpack_ints(data bytea, at integer, OUT numbers bigint[], OUT next integer)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    found record;
    count integer;
BEGIN
    SELECT * INTO found FROM stepstream_msgpack(data, at);
    count := found.items;
    numbers := '{}';
    next := found.next;
    FOR i IN 1 .. count LOOP
        SELECT * INTO found FROM stepstream_msgpack(data, next);
        numbers := numbers || found.number;
        next := found.next;
    END LOOP;
END
$$;

-- The float64 behind its bits.
CREATE FUNCTION stepstream_float8(bits bigint) RETURNS double precision
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE
        WHEN (bits >> 52) & 2047 = 2047 THEN
            CASE WHEN bits & 4503599627370495 <> 0 THEN 'NaN' WHEN bits < 0 THEN '-Infinity' ELSE 'Infinity' END::float8
        WHEN bits & 9223372036854775807 = 0 THEN CASE WHEN bits < 0 THEN '-0' ELSE '0' END::float8
        WHEN (bits >> 52) & 2047 = 0 THEN
            -- Below the smallest normal number: in two steps, since 2**-1074 times a fraction would underflow.
            CASE WHEN bits < 0 THEN -1 ELSE 1 END * (bits & 4503599627370495)::float8
                * power(2::float8, -537) * power(2::float8, -537)
        ELSE CASE WHEN bits < 0 THEN -1 ELSE 1 END * ((bits & 4503599627370495) | 4503599627370496)::float8
            * power(2::float8, (((bits >> 52) & 2047) - 1075)::integer) END
$$;

-- The float32 behind its bits, as float64.
CREATE FUNCTION stepstream_float4(bits bigint) RETURNS double precision
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE
        WHEN (bits >> 23) & 255 = 255 THEN
            CASE WHEN bits & 8388607 <> 0 THEN 'NaN' WHEN bits >> 31 = 1 THEN '-Infinity' ELSE 'Infinity' END::float8
        WHEN bits & 2147483647 = 0 THEN CASE WHEN bits >> 31 = 1 THEN '-0' ELSE '0' END::float8
        ELSE CASE WHEN bits >> 31 = 1 THEN -1 ELSE 1 END
            * CASE WHEN (bits >> 23) & 255 = 0 THEN bits & 8388607 ELSE (bits & 8388607) | 8388608 END::float8
            * power(2::float8, (greatest((bits >> 23) & 255, 1) - 150)::integer) END
$$;

-- Words of so many bytes from byte planes that begin at a place: all first bytes, then all second bytes, and so on.
CREATE FUNCTION stepstream_words(planes bytea, at integer, count integer, width integer) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    words bigint[] := array_fill(0::bigint, ARRAY[count]);
BEGIN
    FOR i IN 0 .. count - 1 LOOP
        words[i + 1] := get_byte(planes, at + i) | (get_byte(planes, at + count + i)::bigint << 8)
            | (get_byte(planes, at + 2 * count + i)::bigint << 16)
            | (get_byte(planes, at + 3 * count + i)::bigint << 24);
        IF width = 8 THEN
            words[i + 1] := words[i + 1] | (get_byte(planes, at + 4 * count + i)::bigint << 32)
                | (get_byte(planes, at + 5 * count + i)::bigint << 40)
                | (get_byte(planes, at + 6 * count + i)::bigint << 48)
                | (get_byte(planes, at + 7 * count + i)::bigint << 56);
        END IF;
    END LOOP;
    RETURN words;
END
$$;

-- A column of integers behind its header and its planes, which begin at a place.
CREATE FUNCTION stepstream_ints(header bigint[], count integer, planes bytea, at integer) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    deltas bigint[];
    numbers bigint[] := array_fill(header[2], ARRAY[count]);
    total numeric := header[2];
BEGIN
    IF header[1] = 0 THEN
        RETURN ARRAY(SELECT (header[2] + i::numeric * header[3])::bigint FROM generate_series(0, count - 1) AS i);
    END IF;
    IF count > 1 THEN
        deltas := stepstream_words(planes, at, count - 1, 8);
    END IF;
    FOR i IN 2 .. count LOOP
        total := total + deltas[i - 1];
        -- Differences are kept modulo 2**64.
        IF total >= 9223372036854775808 THEN
            total := total - 18446744073709551616;
        ELSIF total < -9223372036854775808 THEN
            total := total + 18446744073709551616;
        END IF;
        numbers[i] := total;
    END LOOP;
    RETURN numbers;
END
$$;

-- Bytes of a column of integers behind its header.
CREATE FUNCTION stepstream_ints_size(header bigint[], count integer) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT CASE header[1] WHEN 0 THEN 0 ELSE 8 * (count - 1) END $$;

-- The points of one chunk.
CREATE FUNCTION stepstream_chunk_points(body bytea)
RETURNS TABLE (step bigint, time_ms bigint, value double precision)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    found record;
    here integer;
    count integer;
    steps bigint[];
    times bigint[];
    words bigint[];
    columns bytea;
    step_header bigint[];
    time_header bigint[];
    kind integer;
BEGIN
    SELECT * INTO found FROM stepstream_msgpack(body, 2);
    count := found.number;
    SELECT * INTO step_header, here FROM stepstream_msgpack_ints(body, found.next);
    SELECT * INTO time_header, here FROM stepstream_msgpack_ints(body, here);
    SELECT * INTO found FROM stepstream_msgpack(body, here);
    columns := CASE WHEN length(found.bytes) = 0 THEN ''::bytea ELSE stepstream_zstd(found.bytes) END;
    steps := stepstream_ints(step_header, count, columns, 0);
    times := stepstream_ints(time_header, count, columns, stepstream_ints_size(step_header, count));
    SELECT * INTO found FROM stepstream_msgpack(body, found.next);
    kind := found.number;
    SELECT * INTO found FROM stepstream_msgpack(body, found.next);
    words := stepstream_words(stepstream_zstd(found.bytes), 0, count, CASE kind WHEN 0 THEN 8 ELSE 4 END);
    RETURN QUERY
        SELECT one.s, one.t, CASE kind WHEN 0 THEN stepstream_float8(one.w) ELSE stepstream_float4(one.w) END
        FROM unnest(steps, times, words) AS one (s, t, w);
END
$$;

-- The points of one frame.
CREATE FUNCTION stepstream_frame_points(body bytea)
RETURNS TABLE (key text, step bigint, time_ms bigint, value double precision)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    found record;
    here integer := 1;
    records integer;
    kind integer;
    behind integer;
    keys text[];
    count integer;
    total integer;
    counts bigint[];
    count_header bigint[];
    step_header bigint[];
    time_header bigint[];
    columns bytea;
    at integer;
    steps bigint[];
    times bigint[];
    words bigint[];
BEGIN
    FOR i IN 1 .. 6 LOOP
        here := stepstream_msgpack_skip(body, here);
    END LOOP;
    SELECT * INTO found FROM stepstream_msgpack(body, here);
    records := found.items;
    here := found.next;
    FOR i IN 1 .. records LOOP
        behind := stepstream_msgpack_skip(body, here);
        SELECT * INTO found FROM stepstream_msgpack(body, here);
        SELECT * INTO found FROM stepstream_msgpack(body, found.next);
        kind := found.number;
        IF kind IN (2, 3) THEN
            SELECT * INTO found FROM stepstream_msgpack(body, found.next);
            -- Keys are one text, parted by NUL, which PostgreSQL's text cannot hold: so it is cut as hex digits.
            keys := ARRAY(SELECT convert_from(decode(part, 'hex'), 'UTF8')
                FROM regexp_split_to_table(regexp_replace(encode(found.bytes, 'hex'), '(..)', '\1 ', 'g'), '00 ') AS part);
            SELECT * INTO found FROM stepstream_msgpack(body, found.next);
            total := found.number;
            here := found.next;
            IF kind = 3 THEN
                SELECT * INTO count_header, here FROM stepstream_msgpack_ints(body, here);
            END IF;
            SELECT * INTO step_header, here FROM stepstream_msgpack_ints(body, here);
            SELECT * INTO time_header, here FROM stepstream_msgpack_ints(body, here);
            SELECT * INTO found FROM stepstream_msgpack(body, here);
            columns := CASE WHEN length(found.bytes) = 0 THEN ''::bytea ELSE stepstream_zstd(found.bytes) END;
            at := 0;
            IF kind = 3 THEN
                counts := stepstream_ints(count_header, cardinality(keys), columns, 0);
                at := stepstream_ints_size(count_header, cardinality(keys));
            END IF;
            steps := stepstream_ints(step_header, total, columns, at);
            at := at + stepstream_ints_size(step_header, total);
            times := stepstream_ints(time_header, total, columns, at);
            at := at + stepstream_ints_size(time_header, total);
            IF kind = 2 THEN
                words := stepstream_words(columns, at, total * cardinality(keys), 8);
                RETURN QUERY
                    SELECT keys[1 + (n - 1) / total], steps[1 + (n - 1) % total], times[1 + (n - 1) % total],
                        stepstream_float8(w)
                    FROM unnest(words) WITH ORDINALITY AS one (w, n);
            ELSE
                words := stepstream_words(columns, at, total, 8);
                RETURN QUERY
                    SELECT named.k, one.s, one.t, stepstream_float8(one.w)
                    FROM unnest(steps, times, words) WITH ORDINALITY AS one (s, t, w, n)
                    JOIN (SELECT k, sum(c) OVER (ORDER BY place) - c AS before, sum(c) OVER (ORDER BY place) AS upto
                        FROM unnest(keys, counts) WITH ORDINALITY AS each (k, c, place)) AS named
                        ON one.n > named.before AND one.n <= named.upto;
            END IF;
        END IF;
        here := behind;
    END LOOP;
END
$$;

-- Every acknowledged point, compacted or not. A chunk whose raw points have gone with age shows its first, smallest,
-- largest and last one.
CREATE VIEW metric_points (run_id, key, rank, attempt, step, time, value) AS
SELECT s.run_id, s.key, nullif(s.rank, -1), (s.attempt >> 32) || '.' || ((s.attempt >> 16) & 65535) || '.'
    || (s.attempt & 65535), p.step, to_timestamp(p.time_ms / 1000.0), p.value
FROM series AS s
JOIN chunks AS c USING (run_id, series_id)
CROSS JOIN LATERAL (
    SELECT step, time_ms, value FROM stepstream_chunk_points(c.body)
    UNION ALL
    SELECT DISTINCT * FROM (VALUES (c.first_step, c.first_time_ms, c.first_value), (c.last_step, c.last_time_ms, c.last_value),
        (c.min_step, c.min_time_ms, c.min_value), (c.max_step, c.max_time_ms, c.max_value)) AS kept
    WHERE c.body IS NULL
) AS p
UNION ALL
SELECT f.run_id, p.key, f.rank, (f.attempt >> 32) || '.' || ((f.attempt >> 16) & 65535) || '.'
    || (f.attempt & 65535), p.step, to_timestamp(p.time_ms / 1000.0), p.value
FROM frames AS f
CROSS JOIN LATERAL stepstream_frame_points(f.body) AS p
WHERE f.points > 0;
