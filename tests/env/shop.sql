-- The shop of the demo: customers, orders, order_items, products, and how an order is placed.
\set ON_ERROR_STOP on
set client_min_messages = warning;

create table customers (
  id int primary key, first_name text not null, last_name text not null, city text not null);
create table products (
  id int primary key, name text not null, price_cents int not null, stock int not null);
create table orders (
  id bigint generated always as identity primary key,
  customer_id int not null references customers on delete cascade,
  ordered_at timestamptz not null default clock_timestamp());
create table order_items (
  order_id bigint not null references orders on delete cascade,
  product_id int not null references products,
  quantity int not null, price_cents int not null);
create index on orders (customer_id);
create index on order_items (order_id);

insert into customers select n,
  (array['Ada','Bo','Chris','Dana','Eve','Finn','Gus'])[1 + n % 7],
  (array['Johnson','Garcia','Kim','Novak','Okafor','Rossi','Schmid','Tanaka','Weber','Young'])[1 + n % 10],
  (array['Graz','Lyon','Oslo','Porto'])[1 + n % 4] from generate_series(1, 5000) n;
insert into products select n, 'product ' || n, 100 + n * 37 % 9900, 1000000 from generate_series(1, 500) n;
insert into orders (customer_id, ordered_at)
  select 1 + n * 7919 % 5000, now() - (200000 - n) * interval '30 seconds' from generate_series(1, 200000) n;
insert into order_items select n, p.id, 1 + n % 3, p.price_cents
  from generate_series(1, 200000) n, generate_series(1, 2) i join lateral
  (select id, price_cents from products where id = 1 + (n * 31 + i * 17) % 500) p on true;
update products p set stock = stock - sold
  from (select product_id, sum(quantity) as sold from order_items group by 1) s where product_id = id;

-- One order in one transaction: what is sold leaves the stock, so the two must always agree. A customer or product
-- that is gone is no error here: the shop goes on as well as it can. Tables are always touched in this order.
create function place_order(customer int, product int, pieces int) returns void language plpgsql as $$
declare new_order bigint;
begin
  perform from customers where id = customer;
  if not found then return; end if;
  insert into orders (customer_id) values (customer) returning id into new_order;
  insert into order_items select new_order, id, pieces, price_cents from products where id = product;
  update products set stock = stock - pieces where id = product;
end $$;

-- What is compared before and after: counts and sums.
create view state as select
  (select count(*) from customers) as customers,
  (select count(*) from orders) as orders,
  (select count(*) from order_items) as order_items,
  (select count(*) from products) as products,
  (select coalesce(sum(quantity * price_cents), 0) from order_items) as turnover_cents,
  (select coalesce(sum(stock), 0) from products) as stock;

-- What must hold in any sound copy of this database, whenever it was taken. Each line counts violations.
create view contradictions as
  select 'items of orders that do not exist' as what,
    (select count(*) from order_items i where not exists (select from orders o where o.id = i.order_id)) as times
  union all select 'orders without any item',
    (select count(*) from orders o where not exists (select from order_items i where i.order_id = o.id))
  union all select 'products whose stock does not fit what was sold',
    (select count(*) from products p left join
      (select product_id, sum(quantity) as sold from order_items group by 1) s on product_id = id
      where stock + coalesce(sold, 0) <> 1000000);

create role walden login replication;
vacuum analyze;
